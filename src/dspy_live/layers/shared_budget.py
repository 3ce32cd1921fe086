"""One budget for many processes and machines, kept in Redis or Valkey."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple
from uuid import uuid4

from dspy_live.core.errors import BudgetExceeded, ConfigurationError
from dspy_live.core.usage import Expected, LMRecord
from dspy_live.layers._amounts import Amounts, Unit, amounts_of, nothing
from dspy_live.layers._outage import OnOutage, Outage
from dspy_live.layers.budget import Budget, Reserved
from dspy_live.runtime.forks import at_fork
from dspy_live.runtime.stores import line as shared
from dspy_live.runtime.stores.budget_script import BUDGET
from dspy_live.runtime.stores.line import Ask, Exchange, line_to

logger = logging.getLogger("dspy_live.budget")

Period = Literal["hour", "day", "month"]
Verdict = Literal["granted", "cost", "tokens", "calls", "alone"]

_UNITS: tuple[Unit, ...] = ("cost", "tokens", "calls")
_FRESH = 0.5
"""Seconds for which what the server has told is believed without asking it again."""
_STAMPS: dict[str, tuple[str, int]] = {
    "hour": ("%Y-%m-%dT%H", 2 * 3600),
    "day": ("%Y-%m-%d", 2 * 86_400),
    "month": ("%Y-%m", 62 * 86_400),
}


class BudgetUnreachable(BudgetExceeded):
    """The server of a shared budget does not answer, and the budget lets nothing out without it."""

    code: ClassVar[str] = "budget_unreachable"
    status: ClassVar[int] = 503
    retry_after = 1.0


class SharedBudget(Budget):
    """As :class:`~dspy_live.layers.budget.Budget`, for all processes and machines that use the same ``name``.

    Each LM call reserves its place in the server before it is sent, in one step for all processes, and is settled
    after it. So ``max_calls`` is exact however many processes call at once, and tokens and cost pass their limits by no
    more than the estimates were too low. A call waits for one exchange with the server; calls that come together
    share one. What a process has reserved that dies counts no more after 15 seconds.

    While the server does not answer, the first call that needs it waits for it, for ``timeout`` seconds, and the
    others don't. Then ``on_outage`` decides. The server is tried again every second, and told what was spent.
    A server that comes back empty is told the totals that the processes know, of which the highest counts, and grants
    nothing for 3 seconds, so that all can tell what they have in flight. What only a process knew that has ended, or
    that asks no more, is lost with it.

    Made where no event loop runs, it asks for the totals at once; on a loop, which must not wait, with the first call.
    For the same reason an LM object of your own that runs on the event loop reserves by what its process knows.

    Args:
        url: ``redis://host:port`` and so on, as for :class:`~dspy_live.runtime.stores.redis.RedisStore`.
        name: the budget's name; processes that share it must give the same limits.
        period: begin anew with each hour, day or month (UTC); by default the budget is spent once.
        on_outage: ``"alone"``, the default, lets each process go on from the totals that it knows, as if it were alone,
            so that the limit can be passed by what the others spend meanwhile; ``"refuse"`` refuses every call with
            :class:`BudgetUnreachable` (503) until the server answers.
        timeout: seconds to wait for the server.
        limits: ``max_cost``, ``max_tokens``, ``max_calls`` and the other arguments of ``Budget``.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` as ``Budget`` does, and without the ``redis`` extra.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        period: Period | None = None,
        on_outage: OnOutage = "alone",
        timeout: float = 1.0,
        **limits: Any,
    ) -> None:
        if period is not None and period not in _STAMPS:
            raise ConfigurationError(f"period must be 'hour', 'day' or 'month'; got {period!r}")
        super().__init__(name=name, **limits)
        self._period = period
        self._line = line_to(url, timeout)
        self._outage = Outage(name, on_outage, logger)
        self._asks: list[_Wanted] = []
        self._sent: list[_Wanted] = []
        self._watchers: list[Ask[bool]] = []
        self._watching: list[Ask[bool]] = []
        self._begin()
        at_fork(in_child=self._begin)
        if asyncio._get_running_loop() is None:
            self.sync()
        else:  # made for a key's first run, on the event loop, which must not wait
            self._line.soon(self)

    def _begin(self) -> None:
        """Know nothing and hold nothing, as at the start and in a forked process."""
        self._lock = threading.Lock()
        self._asks, self._sent, self._watchers, self._watching = [], [], [], []
        self._key = self._telling_key = self._key_now()
        self._life = ""
        self._known, self._heard, self._used, self._telling = nothing(), nothing(), nothing(), nothing()
        self._spent, self._reserved, self._elsewhere = nothing(), nothing(), nothing()
        self._fresh_until = 0.0

    def __repr__(self) -> str:
        return f"Shared{super().__repr__()}"

    def check(self) -> None:
        """Raise :class:`~dspy_live.core.errors.BudgetExceeded` when all processes together are known to be at a limit.

        What is known may be half a second old; older figures refuse nobody, and are asked for again.
        """
        with self._lock:
            self._turn_page(self._key_now())
        if not self._outage.down and time.monotonic() > self._fresh_until:
            self._line.soon(self)
            return
        self._refuse_in_outage()
        super().check()

    def reserve(self, expected: Expected) -> Reserved:
        """As :meth:`reserve_async`, for a thread, which waits. On an event loop it decides by what is known here."""
        wanted = self._wanted(expected)
        if self._outage.down or asyncio._get_running_loop() is not None:
            return self._alone(expected)
        self._ask(wanted)
        return self._reserved_as(wanted, wanted.ask.wait_in_thread(self._line), expected)

    async def reserve_async(self, expected: Expected) -> Reserved:
        """Keep room for one LM call in all processes; its first ``record`` settles it, and the account calls both.

        Cancelled meanwhile, nothing is reserved.
        Raises :class:`~dspy_live.core.errors.BudgetExceeded` where the call would pass a limit, or has no known price.
        """
        wanted = self._wanted(expected)
        if self._outage.down:
            return self._alone(expected)
        self._ask(wanted)
        try:
            verdict = await wanted.ask.wait(self._line)
        except BaseException:
            if wanted.ask.withdraw() == "granted":
                self.settle(None, wanted.amounts)
            raise
        return self._reserved_as(wanted, verdict, expected)

    def settle(self, record: LMRecord | None, reserved: Mapping[Unit, float]) -> None:
        """Count one exchange here at once, and for the others soon."""
        super().settle(record, reserved)
        if reserved or record is not None:
            self._line.soon(self, shared.TELL)

    def reset(self) -> None:
        """Start again from nothing spent, for all processes. Raises ``OSError`` when the server can't be reached."""
        life = uuid4().hex
        commands: list[list[Any]] = [["DEL", self._key], ["HSET", self._key, "life", life]]
        if self._period is not None:
            commands.append(["EXPIRE", self._key, _STAMPS[self._period][1]])
        self._line.run(commands)
        with self._lock:
            self._heard, self._known, self._life = dict(self._used), nothing(), life
        super().reset()

    def sync(self) -> bool:
        """Tell the server this process's spending, and wait for the totals. Returns false when it does not answer."""
        watcher: Ask[bool] = Ask()
        with self._lock:
            self._watchers.append(watcher)
        self._line.soon(self)
        return bool(watcher.wait_in_thread(self._line))

    def close(self) -> None:
        """Tell the server the spending that it does not know yet. The budget may be used again."""
        with self._lock:
            untold = self._used != self._heard
        if untold:
            self.sync()

    # A party of the line, in its thread.

    def prepare(self, holder: str) -> Exchange:
        """Return what this process knows, has spent and holds, and what it wants."""
        with self._lock:
            self._turn_page(self._key_now())
            self._sent, self._asks = [w for w in self._asks if w.ask.open], []
            self._watching, self._watchers = self._watchers, []
            self._telling, self._telling_key = dict(self._used), self._key
            ttl = _STAMPS[self._period][1] if self._period is not None else 0
            figures = [self._known, self._heard, self._telling, self._reserved]
            told = [repr(float(of[unit])) for of in figures for unit in _UNITS]
            limits = [repr(float(self.limits[u])) if u in self.limits else "" for u in _UNITS]
            wants = [repr(float(w.amounts[u])) for w in self._sent for u in _UNITS]
        args = [holder, self._life, shared.LEASE, shared.SETTLE, ttl, *told, *limits, *wants]
        return Exchange(BUDGET, self._telling_key, args)

    def answered(self, answer: list[Any]) -> None:
        """Learn the totals, and tell those who wait."""
        life, wait, grants, *figures = (part.decode() for part in answer)
        verdicts = grants.split()
        wanted, watching = self._sent, self._watching
        self._sent, self._watching = [], []
        with self._lock:
            if self._telling_key == self._key:  # else a new period has begun meanwhile
                self._known, self._elsewhere = _amounts(figures[:3]), _amounts(figures[3:])
                self._life, self._heard = life, self._telling
                for unit in _UNITS:
                    self._spent[unit] = self._known[unit] + self._used[unit] - self._heard[unit]
            for want, verdict in zip(wanted, verdicts, strict=True):
                self._answer(want, verdict)
            alerts = self._due()
            holds, asks = bool(self._reserved["calls"]), bool(self._asks)
            self._fresh_until = time.monotonic() + _FRESH
        self._outage.ends()
        if asks:
            self._line.soon(self, float(wait))
        elif holds:
            self._line.soon(self, shared.BEAT)
        for watcher in watching:
            watcher.answer(True)
        for alert in alerts:
            self._alert(alert)

    def _answer(self, want: _Wanted, verdict: str) -> None:
        if verdict == "4":
            self._asks.append(want)
        elif verdict != "0":
            want.ask.answer(_UNITS[int(verdict) - 1])
        elif want.ask.answer("granted"):
            for unit, amount in want.amounts.items():
                self._reserved[unit] += amount
        else:
            self._line.soon(self, shared.TELL)  # nobody wants it any more, and the server is told so

    def failed(self, error: Exception) -> None:
        """Let those who wait decide alone, and try again."""
        self._outage.begins(error)
        with self._lock:
            wanted, self._sent, self._asks = [*self._sent, *self._asks], [], []
            watching, self._watching = self._watching, []
            pending = self._used != self._heard or bool(self._reserved["calls"])
        for want in wanted:
            want.ask.answer("alone")
        for watcher in watching:
            watcher.answer(False)
        if pending or wanted:
            self._line.soon(self, shared.REST)

    # All the rest, in any thread.

    def _wanted(self, expected: Expected) -> _Wanted:
        self._refuse_unpriced_call(expected)
        return _Wanted(amounts_of(expected), Ask())

    def _ask(self, wanted: _Wanted) -> None:
        with self._lock:
            self._asks.append(wanted)
        self._line.soon(self)

    def _reserved_as(self, wanted: _Wanted, verdict: Verdict | None, expected: Expected) -> Reserved:
        if verdict == "granted":
            return Reserved(self, wanted.amounts)
        if verdict is None or verdict == "alone":
            return self._alone(expected)
        with self._lock:
            taken = {u: self._reserved[u] + self._elsewhere[u] for u in _UNITS}
            raise self._too_much(verdict, self.limits[verdict], wanted.amounts[verdict], taken[verdict])

    def _alone(self, expected: Expected) -> Reserved:
        """Decide by what is known here, and tell the server soon: it may have come back."""
        self._refuse_in_outage()
        reserved = super().reserve(expected)
        self._line.soon(self, shared.TELL)
        return reserved

    def _refuse_in_outage(self) -> None:
        if self._outage.refuses:
            self._line.soon(self)
            unit = next(iter(self.limits))
            raise BudgetUnreachable(
                f"{self.name}: the server that keeps this budget does not answer, and nothing is sent without it; try "
                "again later, or let each process count alone with on_outage='alone'",
                unit=unit,
                spent=self._spent[unit],
                limit=self.limits[unit],
            )

    def _count(self, record: LMRecord) -> bool:
        self._used["calls"] += 1
        self._used["tokens"] += record.usage.total_tokens
        self._used["cost"] += record.cost or 0.0
        return super()._count(record)

    def _turn_page(self, key: str) -> None:
        if key == self._key:
            return
        # Spending that is told late belongs to the new period: it is money that is spent now.
        self._key, self._life = key, ""
        self._used = {unit: self._used[unit] - self._heard[unit] for unit in _UNITS}
        self._spent.update(self._used)
        self._known, self._heard = nothing(), nothing()
        self._unpriced.clear()
        self._alerted.clear()

    def _key_now(self) -> str:
        stamp = f":{time.strftime(_STAMPS[self._period][0], time.gmtime())}" if self._period is not None else ""
        return f"dspy-live:budget:{self.name}{stamp}"


class _Wanted(NamedTuple):
    """The amounts of a call that waits for its place, and its question."""

    amounts: Amounts
    ask: Ask[Verdict]


def _amounts(texts: list[str]) -> Amounts:
    cost, tokens, calls = map(float, texts)
    return {"cost": cost, "tokens": int(tokens), "calls": int(calls)}
