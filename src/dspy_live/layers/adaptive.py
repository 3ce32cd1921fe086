"""A concurrency limit that finds out by itself how much the service can take."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._first_word import FirstWord
from dspy_live.layers._now import loop_now
from dspy_live.layers._slots import LimitStatistics, Slots
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
        start: the first limit; ``low`` by default.
        decrease: the factor on overload, below 1.
        slow: seconds to the first token that count as overload, or ``None``.
        queue: how many may wait.
        key: calls of different keys take turns in the queue.
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
    ) -> None:
        self._aimd = Aimd(low, high, start, decrease)
        self.slow = positive("slow", slow, "seconds") if slow is not None else None
        self._slots = Slots(self._aimd.limit, queue)
        self._key = key
        self._decreases = 0

    def __repr__(self) -> str:
        return f"Adaptive({self._aimd.low}, {self._aimd.high})"

    def __call__(self, service: Service) -> Service:
        async def limited(call: Call, sink: Sink) -> Result:
            slots = self._slots
            await slots.acquire(self._key(call) if self._key is not None else None)
            began = loop_now()
            first: float | None = None

            def heard() -> None:
                nonlocal first
                first = loop_now() - began

            try:
                result = await service(call, sink if self.slow is None else FirstWord(sink, heard))
            except BaseException as exc:
                self._learn(began, first, exc)
                raise
            else:
                self._learn(began, loop_now() - began if first is None else first, None)
                return result
            finally:
                slots.release(loop_now() - began)

        return limited

    @property
    def limit(self) -> int:
        """How many calls may run at once now."""
        return self._aimd.limit

    def statistics(self) -> AdaptiveStatistics:
        return AdaptiveStatistics(self._slots.statistics(), self._decreases)

    def _learn(self, began: float, first: float | None, failure: BaseException | None) -> None:
        """Move the limit after a call that said its first word after ``first`` seconds."""
        if (self.slow is not None and first is not None and first > self.slow) or _overloaded(failure):
            self._decreases += self._aimd.bad(loop_now(), began)
        elif failure is None:
            self._aimd.good(self._slots.gate.active)
        if self._aimd.limit != self._slots.gate.limit:
            self._slots.resize(self._aimd.limit)


def _overloaded(failure: BaseException | None) -> bool:
    return isinstance(failure, Exception) and overload(failure)
