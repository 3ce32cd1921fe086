"""A failure that may pass is tried again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar

from dspy_live.core.call import Call
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._attempts import attempts
from dspy_live.layers._now import loop_now
from dspy_live.sansio.checks import whole
from dspy_live.sansio.failures import retry_after, transient
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.sansio.limits.retry_budget import RetryBudget


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """``retries`` were made; ``exhausted`` calls failed at their last try; the others were not tried again because the
    budget was spent (``over_budget``) or the deadline too near (``too_late``). ``budget_left`` is in retries, ``None``
    where there is no budget."""

    calls: int
    retries: int
    exhausted: int
    over_budget: int
    too_late: int
    budget_left: float | None = None


class Retry:
    """Runs a call again after a transient failure: exponential backoff, full jitter, ``Retry-After``, a budget.

    The service has ended before the wait, so that a limit inside of this layer has its slot back. After the first token
    another try begins with a ``Restart``; a door that can't take words back then ends the call with
    :class:`~dspy_live.core.errors.StreamBroken`. It waits for nothing that the call's deadline leaves no time for.

    The budget is for all calls of this layer together: each call that succeeds pays for one retry. Up to half of the
    requests may fail for long and every call has its tries; when everything fails, the savings are soon spent, and a
    call then fails with its first failure, to which a note says so.

    Among the layers of an LM it takes the place of DSPy's ``num_retries``: they never multiply.

    Args:
        tries: how often a call is run at most, the first time included.
        backoff: the waits.
        budget: ``(ratio, per_second, most)`` of :class:`~dspy_live.sansio.limits.retry_budget.RetryBudget`: one
            retry for each call that succeeds, one per second besides, and 250 saved up at most, by default; ``None``
            for no such limit.
        when: tells of a failure whether another try makes sense;
            :func:`~dspy_live.sansio.failures.transient` by default.
        chance: random numbers in [0, 1).
    """

    kind: ClassVar[str] = "retry"

    def __init__(
        self,
        tries: int = 3,
        *,
        backoff: Backoff | None = None,
        budget: tuple[float, float, float] | None = (1.0, 1.0, 250.0),
        when: Callable[[BaseException], bool] = transient,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.tries = whole("tries", tries)
        self.backoff = backoff if backoff is not None else Backoff()
        self.when = when
        self._budget: RetryBudget | None = RetryBudget(0.0, *budget) if budget is not None else None
        self._chance = chance
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("calls", "retries", "exhausted", "over_budget", "too_late"), 0)

    def __repr__(self) -> str:
        return f"Retry({self.tries})"

    def statistics(self) -> RetryStatistics:
        with self._lock:
            left = self._budget.level(loop_now()) if self._budget is not None else None
            return RetryStatistics(**self._counts, budget_left=left)

    def __call__(self, service: Service) -> Service:
        def following(call: Call, failure: Exception, attempt: int) -> tuple[Service, float] | None:
            delay = self._delay(call, failure, attempt)
            return None if delay is None else (service, delay)

        def retried(call: Call, sink: Sink) -> Coroutine[Any, Any, Result]:
            with self._lock:
                self._counts["calls"] += 1
            answered = attempts(call, sink, service, following)
            return answered if self._budget is None else self._paying(self._budget, answered)

        return retried

    async def _paying(self, budget: RetryBudget, answered: Coroutine[Any, Any, Result]) -> Result:
        result = await answered
        with self._lock:
            budget.deposit(loop_now())
        return result

    def _delay(self, call: Call, failure: Exception, attempt: int) -> float | None:
        """Seconds to wait before the next attempt, or ``None`` when there is to be none."""
        if not self.when(failure):
            return None
        delay = self.backoff.delay(attempt - 1, self._chance(), retry_after(failure))
        now = loop_now()
        with self._lock:
            why = self._refusal(call, attempt, now, delay)
            self._counts[why or "retries"] += 1
        if why == "over_budget":
            failure.add_note(
                f"try {attempt} of {self.tries}; no other one is made, for the retry budget of all calls is spent: too "
                "few of them succeed. Retry(budget=(ratio, per_second, most)) sets it, budget=None lifts it"
            )
        return delay if why is None else None

    def _refusal(self, call: Call, attempt: int, now: float, delay: float) -> str | None:
        if attempt >= self.tries:
            return "exhausted"
        if call.deadline is not None and now + delay >= call.deadline:
            return "too_late"
        if self._budget is not None and not self._budget.withdraw(now):
            return "over_budget"
        return None
