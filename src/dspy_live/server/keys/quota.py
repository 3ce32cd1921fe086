"""What a key has used in a day or a month: a budget that begins anew, and that a book on disk remembers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from dspy_live.core.errors import BudgetExceeded
from dspy_live.core.usage import Expected, LMRecord
from dspy_live.layers.budget import Budget, Reserved, Unit
from dspy_live.server.keys.key import Period
from dspy_live.server.keys.periods import stamp

Spent = dict[Unit, float]


class QuotaExceeded(BudgetExceeded):
    """A key has used what it may use in a day or a month; ``retry_after`` is when the next one begins."""

    code: ClassVar[str] = "quota_exceeded"
    status: ClassVar[int] = 429


class PeriodBudget(Budget):
    """As :class:`~dspy_live.layers.budget.Budget`, for one day or month after the other (UTC).

    What is spent is kept aside too until somebody asks for it with :meth:`take`, to write it down.

    Args:
        owner: whose spending it is, in the book: a key's name, or ``program:NAME``.
        period: ``"day"`` or ``"month"``.
        name: the budget's name in errors and alerts.
        clock: the time in Unix seconds.
        limits: ``max_cost``, ``max_tokens``, ``max_calls`` and the other arguments of ``Budget``.
    """

    def __init__(
        self, owner: str, period: Period, *, name: str, clock: Callable[[], float] = time.time, **limits: Any
    ) -> None:
        super().__init__(name=name, **limits)
        self.owner, self.period = owner, period
        self._clock = clock
        self._pending: dict[str, Spent] = {}
        self._stamp = stamp(period, clock())

    def check(self) -> None:
        """Raise :class:`~dspy_live.core.errors.BudgetExceeded` when a limit of this day or month is reached."""
        self._turn()
        super().check()

    def reserve(self, expected: Expected) -> Reserved:
        """Keep room for one LM call in this day or month."""
        self._turn()
        return super().reserve(expected)

    def settle(self, record: LMRecord | None, reserved: Mapping[Unit, float]) -> None:
        """Count one exchange where it ends: one that goes on over midnight belongs to the new day."""
        self._turn()
        super().settle(record, reserved)

    @property
    def stamp(self) -> str:
        """The day or month that is counted now, such as ``2026-11-21``."""
        self._turn()
        return self._stamp

    def take(self) -> dict[str, Spent]:
        """Return what was spent since the last call, by day or month, and forget it."""
        with self._lock:
            taken, self._pending = self._pending, {}
            return taken

    def put_back(self, taken: Mapping[str, Spent]) -> None:
        """Keep what :meth:`take` returned after all, because it could not be written."""
        with self._lock:
            for of, amounts in taken.items():
                self._note(of, amounts)

    def learn(self, of: str, total: Spent) -> None:
        """Set the total of a day or month, which others may have added to, besides what is not written yet."""
        with self._lock:
            if of == self._stamp:
                pending = self._pending.get(of, {})
                for unit, amount in total.items():
                    self._spent[unit] = amount + pending.get(unit, 0)

    def _count(self, record: LMRecord) -> bool:
        used: Spent = {"cost": record.cost or 0.0, "tokens": record.usage.total_tokens, "calls": 1}
        self._note(self._stamp, used)
        return super()._count(record)

    def _note(self, of: str, amounts: Spent) -> None:
        pending = self._pending.setdefault(of, {"cost": 0.0, "tokens": 0, "calls": 0})
        for unit, amount in amounts.items():
            pending[unit] += amount

    def _turn(self) -> None:
        now = stamp(self.period, self._clock())
        if now == self._stamp:
            return
        with self._lock:
            if now != self._stamp:
                self._stamp = now
                self._spent.update({"cost": 0.0, "tokens": 0, "calls": 0})
                self._unpriced.clear()
                self._alerted.clear()
