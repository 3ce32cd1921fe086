"""The front door: how a caller enters a service and leaves it, in time.

A service's exit waits until the work has really ended, so that a limit around it never counts wrong.
A caller who leaves must not be held up by a program that blocks: the exit goes on without it.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from dspy_live.core.call import Call
from dspy_live.core.events import Event, Predicted
from dspy_live.core.service import Receiver, Service
from dspy_live.runtime.scope import sent_by

T = TypeVar("T")

# Long enough for a thread to see that it was stopped, short enough for a caller not to notice.
PATIENCE = 0.1

_leaving: set[asyncio.Task[Any]] = set()


def leaving() -> int:
    """Return how many runs have lost their caller and not ended yet."""
    return len(_leaving)


class Door(Generic[T]):
    """Enter ``inside``; on the way out, wait for its exit for ``patience`` seconds at most.

    When the caller leaves early (cancelled, timed out, gone), the exit starts at once: connections
    close and the program is told to stop. What it still takes to end, it takes without the caller.
    """

    __slots__ = ("_inside", "_patience")

    def __init__(self, inside: AbstractAsyncContextManager[T], patience: float = PATIENCE) -> None:
        self._inside = inside
        self._patience = patience

    async def __aenter__(self) -> T:
        return await self._inside.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if kind is None:
            return await self._inside.__aexit__(None, None, None)
        task = asyncio.ensure_future(self._inside.__aexit__(kind, error, traceback))
        _leaving.add(task)
        task.add_done_callback(_left)
        sent = sent_by(error)
        try:
            await asyncio.wait([task], timeout=self._patience)
        except asyncio.CancelledError as exc:
            # A scope inside may have run out of time while its caller was leaving already.
            sent = sent_by(exc)
            if sent is None:
                raise
            await asyncio.wait([task], timeout=self._patience)
        if task.done():
            # A layer inside may turn what we leave with into its own: a deadline does so with its cancellation.
            return task.result()
        if sent is not None:
            # It can't in time, and the caller must not be left with a cancellation that nobody of its own has sent.
            sent.take_back()
            if sent_by(error) is sent:
                raise sent.error from error
        return None


def _left(task: asyncio.Task[Any]) -> None:
    _leaving.discard(task)
    if not task.cancelled():
        task.exception()  # an exit that failed has told whom it could


async def run(service: Service, call: Call) -> Any:
    """Run ``call`` to its end and return the program's own result. Raises the program's own failure."""
    result: Any = None
    async with Door(service.open(call)) as events:
        while batch := await events.receive_many():
            last: Event = batch[-1]
            if isinstance(last, Predicted):
                result = last.value
    return result


__all__ = ["Door", "Receiver", "leaving", "run"]
