"""Write down what keys use, twice a second, from a thread of its own; read it again at the start."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from dspy_live.server.keys.admission import Admission
from dspy_live.server.keys.quota import PeriodBudget, Spent
from dspy_live.server.keys.store import KeyStore

log = logging.getLogger("dspy_live.keys")

INTERVAL = 0.5
"""Seconds between two writes: what a killed process loses at most."""


class Bookkeeper:
    """Keeps the usage of keys in a :class:`~dspy_live.server.keys.store.KeyStore`.

    Args:
        store: the file; it is closed by its owner.
        clock: the time in Unix seconds.
    """

    def __init__(self, store: KeyStore, *, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._clock = clock
        self._admissions: list[Admission] = []
        self._others: list[PeriodBudget] = []
        self._failing = False
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, admissions: Iterable[Admission]) -> None:
        """Keep the usage of these from now on, in place of those before."""
        self.write()
        self._admissions = [one for one in admissions if one.requests or one.tokens or one.budgets]
        if self._admissions:
            self._start()

    def keep_budget(self, budget: PeriodBudget) -> None:
        """Keep the usage of a budget that is no key's, which goes on with what the file says."""
        budget.learn(budget.stamp, self.store.spent(budget.owner, budget.stamp))
        self._others.append(budget)
        self._start()

    def restore(self, admission: Admission, *, minutes: bool) -> None:
        """Tell a key's limits what the file says that it has used; ``minutes``: in the last minute, too."""
        name, now = admission.key.name, self._clock()
        for _, budget in admission.budgets:
            if isinstance(budget, PeriodBudget):
                budget.learn(budget.stamp, self.store.spent(name, budget.stamp))
        for unit, minute in (("requests", admission.requests), ("tokens", admission.tokens)):
            if minute is not None and minutes:
                for age, amount in self.store.last_minute(name, unit, now):
                    minute.add(amount, max(age, 1e-3))

    def write(self) -> None:
        """Write what was used since the last time, and learn what other processes have used. Never raises."""
        with self._writing:
            try:
                self._write_quotas()
                self._write_minutes()
                self._failing = False
            except Exception as exc:
                if not self._failing:
                    log.warning("%s can't be written, and the usage of keys waits: %s", self.store.path, exc)
                self._failing = True

    def close(self) -> None:
        """Write what is left, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)
        self.write()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dspy-live keys", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.write()

    def _write_quotas(self) -> None:
        quotas = [b for one in self._admissions for _, b in one.budgets if isinstance(b, PeriodBudget)]
        budgets = [*quotas, *self._others]
        taken = [(budget, budget.take()) for budget in budgets]
        rows: dict[tuple[str, str], Spent] = {}
        for budget, amounts in taken:
            rows |= {(budget.owner, of): spent for of, spent in amounts.items()}
        if not rows:
            return
        try:
            self.store.spend(rows)
        except BaseException:
            for budget, amounts in taken:
                budget.put_back(amounts)
            raise
        for budget in budgets:
            budget.learn(budget.stamp, self.store.spent(budget.owner, budget.stamp))

    def _write_minutes(self) -> None:
        rows: dict[tuple[str, str], float] = {}
        for one in self._admissions:
            for unit, minute in (("requests", one.requests), ("tokens", one.tokens)):
                if minute is not None and (amount := minute.take()):
                    rows[one.key.name, unit] = amount
        if rows:
            self.store.count(rows, self._clock())
