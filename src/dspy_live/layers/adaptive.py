"""A concurrency limit that finds out by itself how much the service can take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service
from dspy_live.layers._relay import Watched
from dspy_live.layers._slots import LimitStatistics, Slots
from dspy_live.layers._wrap import Wrapped
from dspy_live.runtime.clock import LOOP_CLOCK, Clock
from dspy_live.sansio.checks import positive
from dspy_live.sansio.failures import overload
from dspy_live.sansio.limits.aimd import Aimd


@dataclass(frozen=True, slots=True)
class AdaptiveStatistics:
    """The limit now, as for :class:`~dspy_live.layers.limit.Limit`, and how often it fell."""

    slots: LimitStatistics
    decreases: int


class Adaptive:
    """As :class:`~dspy_live.layers.limit.Limit`, with a limit between ``low`` and ``high`` that moves.

    It rises by one per round of good calls while it is in use, and is multiplied with ``decrease`` when the service
    says 429 or 503, times out, or takes longer than ``slow`` for its first token. Calls that began before a fall do
    not cause another.

    Args:
        low: never below it.
        high: never above it.
        start: where it begins; ``low`` by default.
        decrease: the factor on overload, below 1.
        slow: seconds to the first token that count as overload, or ``None``.
        queue: how many may wait.
        key: what the queue is fair between.
        clock: where the time comes from; the loop's by default.
    """

    kind: ClassVar[str] = "adaptive"

    def __init__(
        self,
        low: int = 1,
        high: int = 1000,
        *,
        start: int | None = None,
        decrease: float = 0.7,
        slow: float | None = None,
        queue: int = 100,
        key: Callable[[Call], Hashable] | None = None,
        clock: Clock = LOOP_CLOCK,
    ) -> None:
        self._aimd = Aimd(low, high, start, decrease)
        self.slow = positive("slow", slow, "seconds") if slow is not None else None
        self._slots = Slots(self._aimd.limit, queue, clock)
        self._key = key
        self.clock = clock
        self._decreases = 0

    def __call__(self, service: Service) -> Service:
        return Wrapped(self, service)

    @property
    def limit(self) -> int:
        """How many calls may run at once now."""
        return self._aimd.limit

    def statistics(self) -> AdaptiveStatistics:
        return AdaptiveStatistics(self._slots.statistics(), self._decreases)

    @asynccontextmanager
    async def _open(self, inner: Service, call: Call) -> AsyncIterator[Receiver[Event]]:
        await self._slots.acquire(self._key(call) if self._key is not None else None, call.deadline)
        began = self.clock.now()
        watched: _Timed | None = None
        failure: BaseException | None = None
        try:
            async with inner.open(call) as events:
                watched = _Timed(events, self.clock, began)
                yield watched
        except BaseException as exc:
            failure = exc
            raise
        finally:
            self._learn(began, watched, failure)
            self._slots.release(self.clock.now() - began)

    def _learn(self, began: float, watched: _Timed | None, failure: BaseException | None) -> None:
        if watched is not None and watched.failure is not None:
            failure = watched.failure
        first = watched.first_after if watched is not None else None
        if self.slow is not None and first is not None and first > self.slow:
            fell = self._aimd.bad(self.clock.now(), began)
        elif failure is None:
            self._aimd.good(self._slots.gate.active)
            fell = False
        elif not isinstance(failure, (asyncio.CancelledError, GeneratorExit)) and overload(failure):
            fell = self._aimd.bad(self.clock.now(), began)
        else:
            return
        self._decreases += fell
        if self._aimd.limit != self._slots.gate.limit:
            self._slots.resize(self._aimd.limit)


class _Timed(Watched):
    def __init__(self, inner: Receiver[Event], clock: Clock, began: float) -> None:
        super().__init__(inner)
        self._clock = clock
        self._began = began
        self.first_after: float | None = None

    def _first_answer(self) -> None:
        self.first_after = self._clock.now() - self._began
