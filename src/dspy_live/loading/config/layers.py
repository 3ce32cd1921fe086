"""Make the layers that the file asks for. Their order is fixed here, so that no file can have a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dspy_live.core.call import Call
from dspy_live.core.service import Layer
from dspy_live.core.store import Store
from dspy_live.layers import (
    Adaptive,
    Breaker,
    Budget,
    Cache,
    Limit,
    Rate,
    Retry,
    SharedBudget,
    SharedLimit,
    SharedRate,
    SharedSingleFlight,
    SingleFlight,
    per_call,
)
from dspy_live.loading.config.shape import (
    AdaptiveTable,
    BreakerTable,
    BudgetTable,
    CacheTable,
    LayersTable,
    LimitTable,
    LMLayersTable,
    RateTable,
    RetryTable,
)
from dspy_live.loading.config.store import SharedStore
from dspy_live.runtime.stores.memory import MemoryStore
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.sansio.quantities import bytes_of
from dspy_live.server.keys.quota import PeriodBudget


@dataclass
class LayerMaker:
    """Makes layers, and says where their state is kept.

    Args:
        store: a Redis or Valkey for what several servers share; ``None`` keeps it in this process.
        kept: told of each budget that is to be remembered over a restart, or to be closed at the end.
    """

    store: SharedStore | None = None
    kept: Callable[[Budget], object] = field(default=lambda budget: None)

    def program(self, name: str, table: LayersTable) -> list[Layer]:
        """Return the layers around a program, inside of deadline and limit of runs, the outermost first."""
        layers = self._common(f"program:{name}", table)
        if table.cache:
            layers.insert(1 if table.single_flight else 0, Cache(self._cache(table.cache)))
        return layers

    def lm(self, name: str, table: LMLayersTable) -> list[Layer]:
        """Return the layers around an LM, the outermost first."""
        return self._common(f"lm:{name}", table)

    def _common(self, owner: str, table: LMLayersTable) -> list[Layer]:
        layers: list[Layer] = [self._single_flight(owner)] if table.single_flight else []
        if table.budget is not None:
            layers.append(self._budget(owner, table.budget))
        if table.retry is not None:
            layers.append(_retry(table.retry))
        if table.breaker:
            layers.append(_breaker(BreakerTable() if table.breaker is True else table.breaker))
        if table.rate is not None:
            layers.append(self._rate(owner, table.rate))
        if table.limit is not None:
            layers.append(self._limit(owner, table.limit))
        if table.adaptive:
            layers.append(_adaptive(AdaptiveTable() if table.adaptive is True else table.adaptive))
        return layers

    def _cache(self, table: bool | CacheTable) -> Store:
        table = CacheTable() if isinstance(table, bool) else table
        if (store := self.store) is not None:
            from dspy_live.runtime.stores.redis import RedisStore

            return RedisStore(store.url, prefix=f"{store.prefix}runs:", ttl=table.seconds, timeout=store.timeout)
        size = bytes_of(table.max_bytes) if table.max_bytes is not None else 64_000_000
        return MemoryStore(size, ttl=table.seconds)

    def _budget(self, owner: str, table: BudgetTable) -> Layer:
        more: dict[str, Any] = {"alert_at": table.alert_at, "unpriced": table.unpriced}
        more |= {"max_cost": table.max_cost, "max_tokens": table.max_tokens, "max_calls": table.max_calls}
        kind, _, name = owner.partition(":")
        title = f"the {'LM' if kind == 'lm' else kind} {name!r}"
        if table.period == "run":
            return per_call(lambda: Budget(name=f"a run of {title}", **more))
        period = None if table.period == "ever" else table.period
        if (store := self.store) is not None:
            more |= store.options()
            shared = SharedBudget(store.url, store.named(f"{owner}:{table.period}"), period=period, **more)
            self.kept(shared)
            return shared
        if period is None:
            return Budget(name=title, **more)
        budget = PeriodBudget(owner, period, name=f"{title}, by {period}", **more)
        self.kept(budget)
        return budget

    def _single_flight(self, owner: str) -> Layer:
        store = self.store
        return (
            SingleFlight()
            if store is None
            else SharedSingleFlight(store.url, store.named(owner), timeout=store.timeout)
        )

    def _rate(self, owner: str, table: RateTable) -> Layer:
        options = msgspec.structs.asdict(table)
        if (store := self.store) is not None:
            return SharedRate(store.url, store.named(owner), **options, **store.options())
        return Rate(**options)

    def _limit(self, owner: str, table: int | LimitTable) -> Layer:
        table = LimitTable(concurrency=table) if isinstance(table, int) else table
        if (store := self.store) is not None:
            more = store.options()
            return SharedLimit(store.url, store.named(owner), table.concurrency, queue=table.queue, key=_key_of, **more)
        return Limit(table.concurrency, queue=table.queue, key=_key_of)


def _key_of(call: Call) -> str:
    return call.key


def _retry(table: int | RetryTable) -> Retry:
    if isinstance(table, int):
        return Retry(table)
    default = Backoff()
    base, cap = table.base or default.base, table.cap or default.cap
    return Retry(table.tries, backoff=Backoff(base, max(base, cap)))


def _breaker(table: BreakerTable) -> Breaker:
    return Breaker(
        table.failures, minimum=table.minimum, window=table.window, open_for=table.open_for, probes=table.probes
    )


def _adaptive(table: AdaptiveTable) -> Adaptive:
    return Adaptive(table.low, table.high, start=table.start, slow=table.slow, queue=table.queue, key=_key_of)
