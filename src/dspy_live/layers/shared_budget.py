"""One budget for many processes and machines, kept in Redis or Valkey."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.usage import LMRecord
from dspy_live.layers.budget import Budget, Unit

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger("dspy_live.budget")

Period = Literal["hour", "day", "month"]

_FIRST_LIFE = "0"
INTERVAL = 0.2
"""Seconds between two exchanges with the server, while there is anything to tell or to ask."""
_STAMPS: dict[str, tuple[str, int]] = {
    "hour": ("%Y-%m-%dT%H", 2 * 3600),
    "day": ("%Y-%m-%d", 2 * 86_400),
    "month": ("%Y-%m", 62 * 86_400),
}

_EXCHANGE = """
local life = redis.call('HGET', KEYS[1], 'life')
if not life then
  life = ARGV[1]
  redis.call('HSET', KEYS[1], 'life', life)
end
if life == ARGV[1] then
  for i, unit in ipairs({'cost', 'tokens', 'calls'}) do
    if tonumber(redis.call('HGET', KEYS[1], unit) or '0') < tonumber(ARGV[i + 1]) then
      redis.call('HSET', KEYS[1], unit, ARGV[i + 1])
    end
  end
end
redis.call('HINCRBYFLOAT', KEYS[1], 'cost', ARGV[5])
redis.call('HINCRBY', KEYS[1], 'tokens', ARGV[6])
redis.call('HINCRBY', KEYS[1], 'calls', ARGV[7])
if tonumber(ARGV[8]) > 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[8])
end
return redis.call('HMGET', KEYS[1], 'life', 'cost', 'tokens', 'calls')
"""
"""Adds this process's spending to the totals and returns them. Totals that are lower than the process has seen them in
the same life, as when the server came back empty, are set right first. A ``reset()`` begins a new life."""


class SharedBudget(Budget):
    """As :class:`~dspy_live.layers.budget.Budget`, with the spending of all processes that use the same ``name``.

    No LM call waits for the server: spending is told, and that of the others asked for, by a thread five times a
    second. Calls reserve in their own process only. So the limit can be overshot by the spending of the other processes
    in that time, and by their calls in flight.
    While the server is down each process counts alone, from the last known total; one warning is logged, and the
    spending of that time is told later. A server that comes back empty is told the totals that the processes know: the
    highest counts, so that nothing is spent twice. Spending that the server has heard of although its answer was lost
    counts twice: rather too much than too little.

    Args:
        url: ``redis://host:port`` and so on, as for :class:`~dspy_live.runtime.stores.redis.RedisStore`.
        name: the budget's name; processes that share it must give the same limits.
        period: begin anew with each hour, day or month (UTC); by default the budget is spent once.
        limits: ``max_cost``, ``max_tokens``, ``max_calls`` and the other arguments of ``Budget``.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` as ``Budget`` does, and without the ``redis`` extra.
    """

    def __init__(self, url: str, name: str, *, period: Period | None = None, **limits: Any) -> None:
        if period is not None and period not in _STAMPS:
            raise ConfigurationError(f"period must be 'hour', 'day' or 'month'; got {period!r}")
        super().__init__(name=name, **limits)
        self._period = period
        self._server = _connect(url)
        self._pending: dict[Unit, float] = _zero()
        self._key = self._key_now()
        self._known = _zero()
        self._life = _FIRST_LIFE
        self._exchanging = self._server.register_script(_EXCHANGE)
        self._synced = 0.0
        self._down = False
        self._syncing = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.sync()

    def __repr__(self) -> str:
        return f"Shared{super().__repr__()}"

    def check(self) -> None:
        """Raise :class:`~dspy_live.core.errors.BudgetExceeded` when all processes together have reached a limit."""
        if time.monotonic() - self._synced > INTERVAL:
            with self._lock:
                self._turn_page(self._key_now())
            self._ask()
        super().check()

    def settle(self, record: LMRecord | None, reserved: Mapping[Unit, float]) -> None:
        """Count one exchange here at once, and for the others soon."""
        super().settle(record, reserved)
        if record is not None and record.cache != "hit":
            self._ask()

    def _count(self, record: LMRecord) -> bool:
        self._pending["calls"] += 1
        self._pending["tokens"] += record.usage.total_tokens
        self._pending["cost"] += record.cost or 0.0
        return super()._count(record)

    def reset(self) -> None:
        """Start again from nothing spent, for all processes. Raises ``OSError`` when the server can't be reached."""
        with self._syncing:
            life = uuid4().hex
            _asked(lambda: self._begin_life(self._key, life))
            with self._lock:
                self._pending, self._known, self._life = _zero(), _zero(), life
        super().reset()

    def sync(self) -> bool:
        """Tell the server this process's spending, and wait for the total. Returns false when it does not answer."""
        with self._syncing:
            key = self._key_now()
            with self._lock:
                self._turn_page(key)
                told, self._pending = self._pending, _zero()
                life, known = self._life, self._known
            try:
                life, totals = self._exchange(key, life, known, told)
            except Exception as exc:
                with self._lock:
                    for unit, amount in told.items():
                        self._pending[unit] += amount
                self._failed(exc)
                return False
            with self._lock:
                if key == self._key:  # else a new period has begun meanwhile
                    self._life, self._known = life, totals
                    for unit, total in totals.items():
                        self._spent[unit] = total + self._pending[unit]
                alerts = self._due()
        self._answered()
        for alert in alerts:
            self._alert(alert)
        return True

    def close(self) -> None:
        """Tell the server the spending that it does not know yet, and end the thread."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2.0)
        if any(self._pending.values()):
            self.sync()
        self._server.close()

    def _turn_page(self, key: str) -> None:
        if key == self._key:
            return
        # Spending that is told late belongs to the new period: it is money that is spent now.
        self._key = key
        self._spent.update(self._pending)
        self._known, self._life = _zero(), _FIRST_LIFE
        self._unpriced.clear()
        self._alerted.clear()

    def _exchange(
        self, key: str, life: str, known: dict[Unit, float], told: dict[Unit, float]
    ) -> tuple[str, dict[Unit, float]]:
        seconds = _STAMPS[self._period][1] if self._period is not None else 0
        args: list[Any] = [life, *_amounts(known), *_amounts(told), seconds]
        life_now, cost, tokens, calls = self._exchanging(keys=[key], args=args)
        return life_now.decode(), {"cost": float(cost), "tokens": int(tokens), "calls": int(calls)}

    def _begin_life(self, key: str, life: str) -> None:
        pipe = self._server.pipeline(transaction=True)
        pipe.delete(key)
        pipe.hset(key, "life", life)
        if self._period is not None:
            pipe.expire(key, _STAMPS[self._period][1])
        pipe.execute()

    def _key_now(self) -> str:
        stamp = f":{time.strftime(_STAMPS[self._period][0], time.gmtime())}" if self._period is not None else ""
        return f"dspy-live:budget:{self.name}{stamp}"

    def _ask(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._start()
        self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(
                target=_work, args=(weakref.ref(self), self._wake, self._stop), name="dspy-live-budget", daemon=True
            )
            weakref.finalize(self, _end, self._stop, self._wake)
            self._thread.start()

    def _failed(self, exc: Exception) -> None:
        self._synced = time.monotonic()
        if not self._down:
            self._down = True
            logger.warning(
                "%s can't be shared while its server does not answer (%s): this process counts alone",
                self.name,
                type(exc).__name__,
            )

    def _answered(self) -> None:
        self._synced = time.monotonic()
        if self._down:
            self._down = False
            logger.warning("%s is shared again", self.name)


def _work(budget_of: weakref.ref[SharedBudget], wake: threading.Event, stop: threading.Event) -> None:
    # It holds the budget only while it works, so that one that nobody uses any more can go.
    while not stop.is_set():
        wake.wait()
        wake.clear()
        budget = budget_of()
        if budget is None or stop.is_set():
            return
        budget.sync()
        del budget
        stop.wait(INTERVAL)


def _end(stop: threading.Event, wake: threading.Event) -> None:
    stop.set()
    wake.set()


def _zero() -> dict[Unit, float]:
    return {"cost": 0.0, "tokens": 0, "calls": 0}


def _amounts(of: dict[Unit, float]) -> list[str]:
    return [repr(float(of["cost"])), str(int(of["tokens"])), str(int(of["calls"]))]


def _asked(function: Callable[[], Any]) -> Any:
    from redis.exceptions import RedisError

    try:
        return function()
    except RedisError as exc:
        raise OSError(f"the budget's server does not answer: {exc}") from exc


def _connect(url: str) -> Redis:
    try:
        from redis import Redis
    except ImportError:
        raise ConfigurationError("a shared budget needs the extra 'redis': pip install 'dspy-live[redis]'") from None
    try:
        client: Redis = Redis.from_url(url, decode_responses=False, socket_timeout=1.0, socket_connect_timeout=1.0)
    except ValueError as exc:
        raise ConfigurationError(f"that is no address of a Redis or Valkey server: {exc}") from None
    return client
