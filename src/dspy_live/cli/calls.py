"""The call that a command makes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from dspy_live.core.call import Call


def new_call(inputs: Mapping[str, Any], *, timeout: float | None, stream: bool, restartable: bool = True) -> Call:
    """Return a call that may take ``timeout`` seconds from now; to be made on the running loop."""
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    return Call(inputs, deadline=deadline, stream=stream, restartable=restartable)
