"""Limits in money, tokens or calls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Literal

import msgspec

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, ConfigurationError
from dspy_live.core.events import Result
from dspy_live.core.service import Layer, Service
from dspy_live.core.sink import Sink
from dspy_live.core.usage import Expected, LMRecord
from dspy_live.layers._amounts import Amounts, amount_text, amounts_of, limits_of, nothing
from dspy_live.layers._amounts import Unit as Unit
from dspy_live.runtime.books.account import process_account

logger = logging.getLogger("dspy_live.budget")

_ROUNDING = 1e-9
"""The share of a limit that sums of prices are off by."""


class BudgetAlert(msgspec.Struct, frozen=True):
    """A budget is used up to the share that was asked for. ``spent`` and ``limit`` are in ``unit``."""

    budget: str
    unit: Unit
    spent: float
    limit: float

    @property
    def message(self) -> str:
        """A line for people."""
        return (
            f"{self.budget} has used {amount_text(self.unit, self.spent)} of {amount_text(self.unit, self.limit)} "
            f"({self.spent / self.limit:.0%})"
        )


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """The amounts spent, the limits, and what is reserved for calls that run: US dollars (``cost``), ``tokens``,
    ``calls``."""

    spent: dict[Unit, float]
    limits: dict[Unit, float]
    reserved: dict[Unit, float]


class Budget:
    """Refuses LM calls that would pass a limit; the error names the amount spent and the limit.

    Each LM call reserves what it will probably use before it is sent, and is settled with what it has used. So
    ``max_calls`` is exact, and tokens and cost pass their limits by no more than the estimates of the calls were too
    low, however many run at once. The estimate is the prompt's length at four characters a token, and the model's last
    completion (``max_tokens`` before there was any). A call that is alone with nothing spent is sent whatever its
    estimate. Answers from the cache cost nothing and are not refused when the cache is asked first.

    It can be used as a scope (``with budget:``), as a layer around a program or an LM (``Runtime(layers=[budget])``),
    or with :func:`per_call` and :func:`per_key`. One object is one purse: share it to share the limit.

    Args:
        max_cost: US dollars.
        max_tokens: tokens of prompts and completions together, as the provider counts them.
        max_calls: requests that were sent to an LM, failed ones too.
        on_alert: called once for each limit of which the share ``alert_at`` is used; on any thread, must be quick.
            Without it a warning is logged.
        alert_at: a share between 0 and 1.
        name: this budget's name in errors and alerts.
        unpriced: with ``max_cost``, ``"refuse"`` (the default) sends no call to a model without a known price, for
            its cost could not be limited: give one with ``set_prices()``. ``"allow"`` sends it, counts 0 dollars
            and logs a warning once.
    """

    kind: ClassVar[str] = "budget"

    def __init__(
        self,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        max_calls: int | None = None,
        on_alert: Callable[[BudgetAlert], object] | None = None,
        alert_at: float = 0.8,
        *,
        name: str = "budget",
        unpriced: Literal["allow", "refuse"] = "refuse",
    ) -> None:
        self.limits: Amounts = limits_of(max_cost, max_tokens, max_calls)
        if isinstance(alert_at, bool) or not isinstance(alert_at, int | float) or not 0 < alert_at <= 1:
            raise ConfigurationError(f"alert_at must be a share above 0 and up to 1; got {alert_at!r}")
        if unpriced not in ("allow", "refuse"):
            raise ConfigurationError(f"unpriced must be 'allow' or 'refuse'; got {unpriced!r}")
        self.name = name
        self._on_alert = on_alert
        self._alert_at = alert_at
        self._refuse_unpriced = unpriced == "refuse"
        self._spent = nothing()
        self._reserved = nothing()
        self._unpriced: dict[str, int] = {}
        self._alerted: set[Unit] = set()
        self._lock = threading.Lock()
        self._entered: AbstractContextManager[None] | None = None

    def __repr__(self) -> str:
        return f"Budget({', '.join(f'max_{unit}={limit:g}' for unit, limit in self.limits.items())})"

    def statistics(self) -> BudgetStatistics:
        with self._lock:
            return BudgetStatistics(dict(self._spent), dict(self.limits), dict(self._reserved))

    @property
    def spent(self) -> dict[Unit, float]:
        """The amounts used so far: ``cost`` (US dollars), ``tokens``, ``calls``."""
        with self._lock:
            return dict(self._spent)

    @property
    def remaining(self) -> dict[Unit, float]:
        """The rest of each limit, never below 0."""
        with self._lock:
            return {unit: max(0, limit - self._spent[unit]) for unit, limit in self.limits.items()}

    def check(self) -> None:
        """Raise :class:`~dspy_live.core.errors.BudgetExceeded` when a limit is reached; else do nothing."""
        spent = self._spent
        for unit, limit in self.limits.items():
            if spent[unit] >= limit:
                raise self._exceeded(unit, limit)
        if self._refuse_unpriced and self._unpriced and "cost" in self.limits:
            raise self._no_price(", ".join(sorted(self._unpriced)))

    def reserve(self, expected: Expected) -> Reserved:
        """Keep room for one LM call; its first ``record`` settles it, and the account calls both.

        Raises :class:`~dspy_live.core.errors.BudgetExceeded` where the call would pass a limit, or has no known price.
        """
        self.check()
        self._refuse_unpriced_call(expected)
        amounts = amounts_of(expected)
        with self._lock:
            for unit, limit in self.limits.items():
                taken = self._spent[unit] + self._reserved[unit]
                # A call that is estimated at nothing is refused too where nothing is left.
                if taken >= limit or (taken and taken + amounts[unit] > limit * (1 + _ROUNDING)):
                    raise self._too_much(unit, limit, amounts[unit], self._reserved[unit])
            for unit, amount in amounts.items():
                self._reserved[unit] += amount
        return Reserved(self, amounts)

    def record(self, record: LMRecord) -> None:
        """Count one exchange, and alert where a share is reached."""
        self.settle(record, {})

    def settle(self, record: LMRecord | None, reserved: Mapping[Unit, float]) -> None:
        """Give up what was reserved, and count what one exchange has used in its place, in one step."""
        first_unpriced, alerts = False, []
        with self._lock:
            for unit, amount in reserved.items():
                self._reserved[unit] -= amount
            if not self._reserved["calls"]:
                self._reserved.update({"cost": 0.0, "tokens": 0})  # what rounding has left
            if record is not None and record.cache != "hit":
                first_unpriced = self._count(record)
                alerts = self._due()
        if first_unpriced and record is not None:
            logger.warning(
                "%s limits cost, and %r has no known price: its calls count as 0 dollars", self.name, record.model
            )
        for alert in alerts:
            self._alert(alert)

    def reset(self) -> None:
        """Start again from nothing spent, for instance at the start of a day; alerts are due again."""
        with self._lock:
            self._spent.update(nothing())
            self._unpriced.clear()
            self._alerted.clear()

    def __call__(self, service: Service) -> Service:
        """Wrap a service, as a layer: each run is refused at once when the budget is spent, and so are its LM calls."""
        return _metered(service, lambda _: self)

    def __enter__(self) -> Budget:
        if self._entered is not None:
            raise RuntimeError("this Budget is already in force here; one budget is one scope at a time")
        entered = process_account().carrier.entering(self)
        entered.__enter__()
        self._entered = entered
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            entered.__exit__(kind, error, trace)

    def _count(self, record: LMRecord) -> bool:
        self._spent["calls"] += 1
        self._spent["tokens"] += record.usage.total_tokens
        if record.cost is not None:
            self._spent["cost"] += record.cost
            return False
        if not record.usage or "cost" not in self.limits:
            return False
        self._unpriced[record.model] = self._unpriced.get(record.model, 0) + 1
        return self._unpriced[record.model] == 1 and not self._refuse_unpriced

    def _due(self) -> list[BudgetAlert]:
        due = [u for u, limit in self.limits.items() if self._spent[u] >= limit * self._alert_at]
        fresh = [u for u in due if u not in self._alerted]
        self._alerted.update(fresh)
        return [BudgetAlert(self.name, u, self._spent[u], self.limits[u]) for u in fresh]

    def _alert(self, alert: BudgetAlert) -> None:
        if self._on_alert is None:
            logger.warning("%s", alert.message)
            return
        try:
            self._on_alert(alert)
        except Exception:
            logger.exception("on_alert of %s failed", self.name)

    def _exceeded(self, unit: Unit, limit: float) -> BudgetExceeded:
        spent = self._spent[unit]
        return BudgetExceeded(
            f"{self.name}: {amount_text(unit, spent)} of {amount_text(unit, limit)} are spent; "
            "no further LM call is sent. Raise the limit or reset() the budget",
            unit=unit,
            spent=spent,
            limit=limit,
        )

    def _too_much(self, unit: Unit, limit: float, amount: float, reserved: float) -> BudgetExceeded:
        spent = self._spent[unit]
        return BudgetExceeded(
            f"{self.name}: {amount_text(unit, spent)} of {amount_text(unit, limit)} are spent, "
            f"{amount_text(unit, reserved)} are reserved for calls that run, and this one is estimated at "
            f"{amount_text(unit, amount)}; it is not sent. Raise the limit, or let fewer calls run at once",
            unit=unit,
            spent=spent,
            limit=limit,
        )

    def _refuse_unpriced_call(self, expected: Expected) -> None:
        if self._refuse_unpriced and "cost" in self.limits and expected.model and expected.cost is None:
            raise self._no_price(expected.model)

    def _no_price(self, models: str) -> BudgetExceeded:
        spent, limit = self._spent["cost"], self.limits["cost"]
        return BudgetExceeded(
            f"{self.name}: {amount_text('cost', spent)} of {amount_text('cost', limit)} are spent, but {models} has no "
            "known price, so that its cost can't be limited; give one with set_prices(), or allow it with "
            "unpriced='allow'",
            unit="cost",
            spent=spent,
            limit=limit,
        )


class Reserved:
    """What a budget keeps for one LM call, as a meter that stands for the budget in that call."""

    __slots__ = ("_amounts", "_budget")

    def __init__(self, budget: Budget, amounts: Mapping[Unit, float]) -> None:
        self._budget = budget
        self._amounts = amounts

    def check(self) -> None:
        """Refuse nothing: there is room for this call."""

    def record(self, record: LMRecord) -> None:
        """Count one exchange of the call; the first one takes the place of the estimate."""
        amounts, self._amounts = self._amounts, {}
        self._budget.settle(record, amounts)

    def release(self) -> None:
        """Give up the room that is kept, where that has not happened yet."""
        amounts, self._amounts = self._amounts, {}
        self._budget.settle(None, amounts)


def per_call(make: Callable[[], Budget]) -> Layer:
    """Return a layer that gives each run a budget of its own, made by ``make``."""
    return lambda service: _metered(service, lambda _: make())


def per_key(make: Callable[[str], Budget]) -> Layer:
    """Return a layer that gives all runs of one API key (``call.key``) a budget together.

    ``make(key)`` is called for a key's first run; runs without a key share one (``make("")``).
    """
    budgets: dict[str, Budget] = {}
    lock = threading.Lock()

    def budget_of(call: Call) -> Budget:
        with lock:
            budget = budgets.get(call.key)
            if budget is None:
                budget = budgets[call.key] = make(call.key)
            return budget

    return lambda service: _metered(service, budget_of)


def _metered(service: Service, budget_of: Callable[[Call], Budget]) -> Service:
    async def metered(call: Call, sink: Sink) -> Result:
        budget = budget_of(call)
        budget.check()
        if budget not in call.meters:
            call = call.but(meters=(*call.meters, budget))
        return await service(call, sink)

    return metered
