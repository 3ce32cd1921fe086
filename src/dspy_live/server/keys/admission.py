"""Hold one key to its limits: what it may run, how often, how many at once, and for how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dspy_live.core.errors import BudgetExceeded, LiveError, NotFound, RateLimited
from dspy_live.core.usage import Meter
from dspy_live.layers.budget import Budget
from dspy_live.server.keys.key import Key, Period
from dspy_live.server.keys.minute import MINUTE, Minute, TokenMeter
from dspy_live.server.keys.periods import seconds_left
from dspy_live.server.keys.quota import QuotaExceeded
from dspy_live.server.keys.rate_headers import Headers, rate_limit_headers
from dspy_live.server.keys.shared_limits import Refusal, SharedKeyLimits, SharedRun


class Admission:
    """The limits of one key, and what it uses of them now.

    Args:
        key: its limits.
        budgets: its quotas, as budgets that begin anew with the period.
        clock: the time in Unix seconds.
    """

    def __init__(self, key: Key, budgets: Sequence[tuple[Period, Budget]], clock: Callable[[], float]) -> None:
        self.key = key
        self.requests = Minute(key.requests_per_minute) if key.requests_per_minute is not None else None
        self.tokens = Minute(key.tokens_per_minute) if key.tokens_per_minute is not None else None
        self.budgets = list(budgets)
        self.shared: SharedKeyLimits | None = None
        """The same limits over several servers; ``None`` where this one counts alone."""
        self.active = 0
        self._clock = clock
        self.meters: tuple[Meter, ...] = tuple(budget for _, budget in self.budgets)
        if self.tokens is not None:
            self.meters += (TokenMeter(self.tokens),)

    def take_over(self, before: Admission) -> None:
        """Go on with what the key has used under its former limits, where those are the same."""
        self.active = before.active
        if self.requests is not None and before.requests is not None and self.requests.limit == before.requests.limit:
            self.requests = before.requests
        if self.tokens is not None and before.tokens is not None and self.tokens.limit == before.tokens.limit:
            self.tokens = before.tokens
            self.meters = (*(budget for _, budget in self.budgets), TokenMeter(self.tokens))

    def check_program(self, program: str) -> None:
        """Raise :class:`NotFound` for a program that the key may not run, be it there or not."""
        programs = self.key.programs
        if programs is not None and program not in programs:
            may = ", ".join(map(repr, programs)) or "none"
            raise NotFound(f"no program {program!r} for this key, which may run {may}")

    def admit(self, program: str) -> None:
        """Count a run in, or raise the error that refuses it: :class:`RateLimited`, :class:`QuotaExceeded`, …"""
        self._check(program)
        if self.requests is not None:
            self.requests.add(1)
        self.active += 1

    async def admit_shared(self, shared: SharedKeyLimits, program: str) -> SharedRun:
        """As :meth:`admit`, over all servers; what is full here is full everywhere, and needs no question."""
        self._check(program)
        taken = await shared.take()
        if isinstance(taken, Refusal):
            raise self._refused(*taken)
        try:
            self.admit(program)  # in an outage each server counts alone
        except BaseException:
            taken.leave()
            raise
        return taken

    def _check(self, program: str) -> None:
        self.check_program(program)
        key = self.key
        if key.concurrency is not None and self.active >= key.concurrency:
            raise self._refused("runs at once", key.concurrency, 1.0, f"{self.active} are under way")
        for minute, unit in ((self.requests, "requests per minute"), (self.tokens, "tokens per minute")):
            wait = minute.wait() if minute is not None else 0.0
            if minute is not None and wait > 0:
                raise self._refused(unit, minute.limit, wait, "they are used up")
        for period, budget in self.budgets:
            try:
                budget.check()
            except BudgetExceeded as exc:
                raise self.spent(period, exc) from None

    def leave(self) -> None:
        """Count a run out."""
        self.active = max(0, self.active - 1)

    def error(self, exc: BudgetExceeded) -> LiveError:
        """Return what the client is told of a spent budget: a quota of this key's, or one that is not the key's."""
        for period, budget in self.budgets:
            if exc.status != 503 and exc.message.startswith(f"{budget.name}: "):
                return self.spent(period, exc)
        return exc

    def spent(self, period: Period, exc: BudgetExceeded) -> QuotaExceeded:
        """Return the error for a quota that is used up, or that has no room for this call."""
        unit, limit, spent = exc.details["unit"], exc.details["limit"], exc.details["spent"]
        wait = seconds_left(period, self._clock())
        if unit == "cost" and spent < limit and "no known price" in exc.message:
            said = f"{exc.message.partition(': ')[2]}"
        else:
            left = "" if spent >= limit else ", and this call, with those under way, might take more than the rest"
            said = f"{_amount(unit, spent)} of {_amount(unit, limit)} in this {period} (UTC) are used{left}"
        error = QuotaExceeded(f"the key {self.key.name!r}: {said}", retry_after=wait, **exc.details)
        error.details["rate_limit"] = (max(1, round(limit)), 0, wait)
        return error

    def headers(self) -> Headers:
        """Return ``X-RateLimit-…`` of the limit that a client has to keep to: requests, else tokens, else runs."""
        known = self.shared.left() if self.shared is not None else None
        if known is not None:
            return rate_limit_headers(*known)
        for minute in (self.requests, self.tokens):
            if minute is not None:
                return rate_limit_headers(minute.limit, minute.left(), minute.reset())
        most = self.key.concurrency
        return rate_limit_headers(most, max(0, most - self.active), 1.0) if most is not None else []

    def _refused(self, unit: str, limit: float, wait: float, why: str) -> RateLimited:
        wait = min(max(wait, 1.0), MINUTE if limit >= 1 else MINUTE / limit)
        return RateLimited(
            f"the key {self.key.name!r} may have {limit:g} {unit}, and {why}; try again in {wait:.0f} s",
            retry_after=wait,
            limit=limit,
            unit=unit,
            local=True,
            rate_limit=(limit, 0, wait),
        )


def _amount(unit: str, value: float) -> str:
    return f"${value:,.4f}" if unit == "cost" else f"{value:,.0f} {'LM calls' if unit == 'calls' else unit}"
