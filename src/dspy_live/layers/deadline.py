"""A run has so many seconds, everything included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import DeadlineExceeded
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service
from dspy_live.layers._wrap import Wrapped
from dspy_live.runtime.clock import LOOP_CLOCK, Clock
from dspy_live.runtime.scope import Scope
from dspy_live.sansio.checks import positive


@dataclass(frozen=True, slots=True)
class DeadlineStatistics:
    """Calls that were opened, and those that ran out of time."""

    calls: int
    exceeded: int


class Deadline:
    """Ends each call ``seconds`` after it was opened, with :class:`DeadlineExceeded`.

    The time is passed on in ``call.deadline``, so that every LM and tool call inside knows what is left; an earlier
    deadline of the call itself holds. Outside of a limit's queue, the wait in it counts.

    Read the events in the task that opened the call: it is cancelled when the time is up, and finds
    the error where it leaves the context.

    Args:
        seconds: above 0.
        clock: where the time comes from; the loop's by default.
    """

    kind: ClassVar[str] = "deadline"

    def __init__(self, seconds: float, *, clock: Clock = LOOP_CLOCK) -> None:
        self.seconds = positive("seconds", seconds)
        self.clock = clock
        self._calls = 0
        self._exceeded = 0

    def __call__(self, service: Service) -> Service:
        return Wrapped(self, service)

    def statistics(self) -> DeadlineStatistics:
        return DeadlineStatistics(self._calls, self._exceeded)

    @asynccontextmanager
    async def _open(self, inner: Service, call: Call) -> AsyncIterator[Receiver[Event]]:
        now = self.clock.now()
        deadline, had = now + self.seconds, self.seconds
        if call.deadline is not None and call.deadline < deadline:
            deadline, had = call.deadline, call.deadline - now
        self._calls += 1
        if had <= 0:
            self._exceeded += 1
            raise DeadlineExceeded(f"the call's deadline had passed {-had:.3g} s before it was opened")
        error = DeadlineExceeded(
            f"the run took longer than the {had:.3g} s that it had; raise the timeout, or ask for less", seconds=had
        )
        scope = Scope(deadline, on_deadline=error, now=self.clock.now)
        try:
            async with scope, inner.open(call.but(deadline=deadline)) as events:
                yield events
        finally:
            self._exceeded += scope.cancelled
