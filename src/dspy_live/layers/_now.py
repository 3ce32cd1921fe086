"""The time that layers go by."""

from __future__ import annotations

import asyncio
import time


def loop_now() -> float:
    """Return the running loop's time; outside of any loop, for statistics, the clock that loops count on."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
