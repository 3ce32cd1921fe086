"""The polling helper of the tests, for changes without an event: in another process, a thread, a socket's peer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BOUND = 30.0
"""Seconds after which a test fails; a busy machine needs some of them."""


def until(condition: Callable[[], object], seconds: float = BOUND) -> None:
    """Wait in this thread until ``condition()`` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true within {seconds:g} s: {condition}"
        time.sleep(0.002)


async def async_until(condition: Callable[[], object], seconds: float = BOUND) -> None:
    """Wait in this task until ``condition()`` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true within {seconds:g} s: {condition}"
        await asyncio.sleep(0.002)
