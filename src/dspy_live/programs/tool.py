"""``Tool``: a ``dspy.Tool`` that never blocks the loop, and may be async wherever it is called from."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import anyio.to_thread
import dspy

from dspy_live.programs.internals import with_callbacks
from dspy_live.programs.run import current_run
from dspy_live.programs.user_loop import run_coroutine


class Tool(dspy.Tool):
    """A function that a program may call, with name, description and arguments as ``dspy.Tool`` has them.

    A synchronous function that is awaited runs in a worker thread, with the caller's context. An
    asynchronous one that is called from synchronous code runs on the run's loop, or in the background.
    A run that is stopped calls no further tool.
    """

    @with_callbacks
    def __call__(self, **kwargs: Any) -> Any:
        _check()
        arguments = self._validate_and_parse_args(**kwargs)
        if asyncio.iscoroutinefunction(self.func):
            return run_coroutine(lambda: self.func(**arguments))
        result = self.func(**arguments)
        return run_coroutine(lambda: _awaited(result)) if inspect.isawaitable(result) else result

    @with_callbacks
    async def acall(self, **kwargs: Any) -> Any:
        _check()
        arguments = self._validate_and_parse_args(**kwargs)
        if asyncio.iscoroutinefunction(self.func):
            return await self.func(**arguments)
        # Not abandoned on cancellation: the run has ended when its tools have.
        result = await anyio.to_thread.run_sync(lambda: self.func(**arguments))
        return await result if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


def _check() -> None:
    run = current_run()
    if run is not None:
        run.scope.check()
