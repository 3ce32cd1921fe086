"""A failure that may pass is tried again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.service import Service
from dspy_live.layers._attempts import attempts
from dspy_live.layers._wrap import Opened, Wrapped
from dspy_live.runtime.clock import LOOP_CLOCK, Clock
from dspy_live.sansio.checks import whole
from dspy_live.sansio.failures import retry_after, transient
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.sansio.limits.retry_budget import RetryBudget


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """``retries`` were made; ``exhausted`` calls failed at their last try; the others were not tried again because the
    budget was spent (``over_budget``) or the deadline too near (``too_late``)."""

    calls: int
    retries: int
    exhausted: int
    over_budget: int
    too_late: int


class Retry:
    """Opens a call again after a transient failure: exponential backoff, full jitter, ``Retry-After``, a budget.

    The service is left before the wait, so that a limit inside of this layer has its slot back. After the first token
    another try begins with a ``Restart``; behind a door that can't restart the call fails with
    :class:`StreamBroken`. It waits for nothing that the call's deadline would not leave time for.

    Among the layers of an LM it takes the place of DSPy's ``num_retries``: they never multiply.

    Args:
        tries: how often a call is opened at most, the first time included.
        backoff: the waits.
        budget: retries that all calls of this layer may make together, as ``(ratio, per_second, most)`` of
            :class:`~dspy_live.sansio.limits.retry_budget.RetryBudget`; ``None`` for no such limit.
        when: tells of a failure whether another try makes sense;
            :func:`~dspy_live.sansio.failures.transient` by default.
        clock: where the time comes from; the loop's by default.
        chance: random numbers in [0, 1).
    """

    kind: ClassVar[str] = "retry"
    retries: ClassVar[bool] = True
    """Tells the LM's engine that its own ``num_retries`` must not be used as well."""

    def __init__(
        self,
        tries: int = 3,
        *,
        backoff: Backoff | None = None,
        budget: tuple[float, float, float] | None = (0.2, 1.0, 10.0),
        when: Callable[[BaseException], bool] = transient,
        clock: Clock = LOOP_CLOCK,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.tries = whole("tries", tries)
        self.backoff = backoff if backoff is not None else Backoff()
        self.when = when
        self.clock = clock
        self._budget: RetryBudget | None = RetryBudget(0.0, *budget) if budget is not None else None
        self._chance = chance
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("calls", "retries", "exhausted", "over_budget", "too_late"), 0)

    def __call__(self, service: Service) -> Service:
        return Wrapped(self, service)

    def statistics(self) -> RetryStatistics:
        return RetryStatistics(**self._counts)

    def _open(self, inner: Service, call: Call) -> Opened:
        with self._lock:
            self._counts["calls"] += 1
            if self._budget is not None:
                self._budget.deposit(self.clock.now())

        async def following(failure: Exception, openings: int) -> Service | None:
            delay = self._delay(call, failure, openings)
            if delay is None:
                return None
            await self.clock.sleep(delay)
            return inner

        return attempts(call, inner, following)

    def _delay(self, call: Call, failure: Exception, openings: int) -> float | None:
        """Seconds to wait before the next opening, or ``None`` when there is to be none."""
        if not self.when(failure):
            return None
        delay = self.backoff.delay(openings - 1, self._chance(), retry_after(failure))
        now = self.clock.now()
        with self._lock:
            why = self._refusal(call, openings, now, delay)
            self._counts[why or "retries"] += 1
        return delay if why is None else None

    def _refusal(self, call: Call, openings: int, now: float, delay: float) -> str | None:
        if openings >= self.tries:
            return "exhausted"
        if call.deadline is not None and now + delay >= call.deadline:
            return "too_late"
        if self._budget is not None and not self._budget.withdraw(now):
            return "over_budget"
        return None
