"""``Tool``: a ``dspy.Tool`` that never blocks the loop, and may be async wherever it is called from."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from contextvars import ContextVar
from typing import Any

import anyio
import dspy

from dspy_live.programs.internals import with_callbacks
from dspy_live.programs.run.run import current_run
from dspy_live.programs.run.user_loop import run_coroutine
from dspy_live.runtime.execution.execution import to_thread

# Apart from the threads that programs run in: a program that waits for its tool must not hold the tool's place.
MAX_TOOL_THREADS = 256

_limiters: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = weakref.WeakKeyDictionary()
_inside: ContextVar[bool] = ContextVar("dspy_live_tool_thread", default=False)


class Tool(dspy.Tool):
    """A function that a program may call, with name, description and arguments as ``dspy.Tool`` has them.

    A synchronous function that is awaited runs in a worker thread, with the caller's context; up to
    256 do at once on a loop. An asynchronous one that is called from synchronous code runs on the
    run's loop, or in the background; DSPy's ``allow_tool_async_sync_conversion`` is not needed.

    A run that is stopped calls no further tool. Cancellation reaches an asynchronous function at once; a
    synchronous one ends by itself, and only then is the call over.
    """

    @with_callbacks
    def __call__(self, **kwargs: Any) -> Any:
        _check()
        arguments = self._validate_and_parse_args(**kwargs)
        if inspect.iscoroutinefunction(self.func):
            return run_coroutine(lambda: self.func(**arguments))
        result = self.func(**arguments)
        return run_coroutine(lambda: _awaited(result)) if inspect.isawaitable(result) else result

    @with_callbacks
    async def acall(self, **kwargs: Any) -> Any:
        _check()
        arguments = self._validate_and_parse_args(**kwargs)
        if inspect.iscoroutinefunction(self.func):
            return await self.func(**arguments)
        token = _inside.set(True)  # seen in the thread, whose context is a copy of this one
        try:
            result = await to_thread(lambda: self.func(**arguments), _threads(token.old_value is True))
        finally:
            _inside.reset(token)
        return await result if inspect.isawaitable(result) else result


def _threads(nested: bool) -> anyio.CapacityLimiter:
    """One limiter for each loop; a tool that waits for another tool must not wait for a place too."""
    if nested:
        return anyio.CapacityLimiter(1)
    loop = asyncio.get_running_loop()
    limiter = _limiters.get(loop)
    if limiter is None:
        limiter = _limiters[loop] = anyio.CapacityLimiter(MAX_TOOL_THREADS)
    return limiter


async def _awaited(result: Any) -> Any:
    return await result


def _check() -> None:
    run = current_run()
    if run is not None:
        run.check()
