"""A caller that leaves is not held up by code that blocks; the layers inside of this one still wait for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled
from dspy_live.core.events import Event, Result
from dspy_live.core.service import Service
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.runtime.scope import until_done
from dspy_live.sansio.checks import not_negative

PATIENCE = 0.1
"""Seconds. Long enough for a thread to see that it was stopped, short enough for a caller not to notice."""

_leaving: set[asyncio.Task[Any]] = set()


def leaving() -> int:
    """Return how many runs have lost their caller and have not ended yet."""
    return len(_leaving)


@dataclass(frozen=True, slots=True)
class DetachedStatistics:
    """Calls whose caller left before they had ended: those that have not ended yet, and all."""

    leaving: int
    left: int


class Detached:
    """Runs each call in a task of its own. A caller that is cancelled waits ``patience`` seconds for its end at most.

    The cancellation reaches the work at once: LM connections close, and the program stops at its next LM or tool call.
    A thread can't be ended from outside; a limit inside of this layer keeps its slot until the thread has ended, while
    the caller goes on. From its leaving on the caller's sink gets no events.

    Args:
        patience: seconds, 0.1 by default.
        when: asked at each call whether the code inside may block at all. Where it may not, the call is passed on as it
            is: a caller that leaves waits for its end, which comes at once. Every call gets a task by default.
    """

    kind: ClassVar[str] = "detached"

    def __init__(self, patience: float = PATIENCE, *, when: Callable[[], bool] | None = None) -> None:
        self.patience = not_negative("patience", patience, "seconds")
        self.when = when
        self._leaving = 0
        self._left = 0

    def __repr__(self) -> str:
        return "Detached()" if self.patience == PATIENCE else f"Detached({self.patience:g})"

    def statistics(self) -> DetachedStatistics:
        return DetachedStatistics(self._leaving, self._left)

    def __call__(self, service: Service) -> Service:
        async def detached(call: Call, sink: Sink) -> Result:
            if self.when is not None and not self.when():
                return await service(call, sink)
            gate = _Gate(sink)
            task = asyncio.get_running_loop().create_task(service(call, gate))
            try:
                await until_done(task)
            except asyncio.CancelledError:
                if self._leave(task):
                    await asyncio.wait([task], timeout=self.patience)
                raise
            finally:
                gate.cut()
            if task.cancelled():  # nobody of the caller's has sent this cancellation: as such it would be a lie
                raise Cancelled("the run was cancelled")
            return task.result()

        return detached

    def _leave(self, task: asyncio.Task[Any]) -> bool:
        """Cancel the work of a caller that has left. False when it has ended already."""
        self._leaving += 1
        self._left += 1
        _leaving.add(task)  # the loop itself does not keep its tasks
        task.add_done_callback(self._ended)
        return task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._leaving -= 1
        _leaving.discard(task)
        if not task.cancelled():
            task.exception()  # an end that failed has nobody to tell


class _Gate:
    """A sink that can be cut off. ``push`` is a real method, so that a wrapper that has bound it is cut off too."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def push(self, event: Event) -> bool:
        return self._sink.push(event)

    async def room(self) -> None:
        await self._sink.room()

    def cut(self) -> None:
        self._sink = DISCARD
