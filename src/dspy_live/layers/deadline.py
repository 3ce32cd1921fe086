"""A run has so many seconds, everything included."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import DeadlineExceeded
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._now import loop_now
from dspy_live.sansio.checks import positive


@dataclass(frozen=True, slots=True)
class DeadlineStatistics:
    """Calls that had a deadline, and those that ran out of time."""

    calls: int
    exceeded: int


class Deadline:
    """Ends each call ``seconds`` after it came, with :class:`DeadlineExceeded`.

    The time is passed on in ``call.deadline``, so that every LM and tool call inside knows the time left; an earlier
    deadline of the call itself holds. Outside of a limit's queue, the wait in it counts.

    Args:
        seconds: above 0; by default only a deadline that the call itself has is enforced.
    """

    kind: ClassVar[str] = "deadline"

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = positive("seconds", seconds) if seconds is not None else None
        self._calls = 0
        self._exceeded = 0

    def __repr__(self) -> str:
        return f"Deadline({'' if self.seconds is None else f'{self.seconds:g}'})"

    def statistics(self) -> DeadlineStatistics:
        return DeadlineStatistics(self._calls, self._exceeded)

    def __call__(self, service: Service) -> Service:
        async def timed(call: Call, sink: Sink) -> Result:
            if self.seconds is None and call.deadline is None:
                return await service(call, sink)
            now = loop_now()
            at = now + self.seconds if self.seconds is not None else call.deadline
            assert at is not None
            if call.deadline is not None and call.deadline < at:
                at = call.deadline
            had = at - now
            self._calls += 1
            if had <= 0:
                self._exceeded += 1
                raise DeadlineExceeded(f"the call's deadline had passed {-had:.3g} s before it began")
            try:
                async with asyncio.timeout_at(at) as timeout:
                    result = await service(call.but(deadline=at), sink)
            except TimeoutError as exc:
                if not timeout.expired():
                    raise
                self._exceeded += 1
                raise _too_late(had) from exc.__cause__
            except DeadlineExceeded as exc:
                # A program that blocked the loop past its deadline sees that before the timer here can fire.
                if type(exc) is not DeadlineExceeded or loop_now() < at:
                    raise
                self._exceeded += 1
                raise _too_late(had) from exc
            if timeout.expired():  # the code inside swallowed the cancellation; its late result must not win
                self._exceeded += 1
                raise _too_late(had)
            return result

        return timed


def _too_late(had: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the run took longer than the {had:.3g} s that it had; raise the timeout, or ask for less", seconds=had
    )
