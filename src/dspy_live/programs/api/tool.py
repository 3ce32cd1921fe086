"""``Tool``: a ``dspy.Tool`` that never blocks the loop, and may be async wherever it is called from."""

from __future__ import annotations

import inspect
from typing import Any

import dspy

from dspy_live.programs.internals import with_callbacks
from dspy_live.programs.run.tool_thread import acall_in_thread, check, is_asynchronous
from dspy_live.programs.run.user_loop import run_coroutine


class Tool(dspy.Tool):
    """A function that a program may call, with name, description and arguments as ``dspy.Tool`` has them.

    A synchronous function that is awaited runs in a worker thread, with the caller's context, inside of a run and
    outside of any; up to 256 do at once on a loop. (A plain ``dspy.Tool`` does so inside of runs.) An asynchronous one
    that is called from synchronous code runs on the run's loop, or in the background; DSPy's
    ``allow_tool_async_sync_conversion`` is not needed.

    A run that is stopped calls no further tool. Cancellation reaches an asynchronous function at once; a
    synchronous one ends by itself, and only then is the call over.
    """

    @with_callbacks
    def __call__(self, **kwargs: Any) -> Any:
        check()
        arguments = self._validate_and_parse_args(**kwargs)
        if is_asynchronous(self.func):
            return run_coroutine(lambda: self.func(**arguments))
        result = self.func(**arguments)
        return run_coroutine(lambda: _awaited(result)) if inspect.isawaitable(result) else result

    async def acall(self, **kwargs: Any) -> Any:
        """Call the tool; a synchronous function in a worker thread."""
        return await (_acall_here if is_asynchronous(self.func) else acall_in_thread)(self, **kwargs)


@with_callbacks  # type: ignore[untyped-decorator,unused-ignore]
async def _acall_here(self: Any, **kwargs: Any) -> Any:
    check()
    return await self.func(**self._validate_and_parse_args(**kwargs))


async def _awaited(result: Any) -> Any:
    return await result
