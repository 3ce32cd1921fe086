"""The meter layer books what a service tells of its usage, and asks budgets before."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded
from dspy_live.core.events import Predicted, Started, Token, Usage
from dspy_live.core.usage import LMRecord
from dspy_live.layers.budget import Budget
from dspy_live.layers.meter import meter
from dspy_live.observe.tracker import UsageTracker
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.books.prices import Price, Prices
from dspy_live.runtime.channel import read
from dspy_live.testing import ScriptedService, Wait, collect

RUN: list[Any] = [
    Started("r", "Rag"),
    Token("x", "answer", "a", 1),
    Usage("m", "a", 1, 10, 5, 15, 4, 2, cost=0.5),
    Usage("m", "b", 2, cached=True, cost=0.0),
    Usage("priced", "c", 3, 1_000_000, 0, 1_000_000, estimated=True),
    Predicted({"answer": "x"}),
]


def a_call(**fields: Any) -> Call:
    return Call({}, program="Rag", key="team", **fields)


class Keeps:
    def __init__(self) -> None:
        self.records: list[LMRecord] = []

    def check(self) -> None: ...

    def record(self, record: LMRecord) -> None:
        self.records.append(record)


async def test_every_usage_event_is_booked_and_passed_on() -> None:
    account, keeps = Account(prices=Prices({"priced": Price(2.0, 1.0)})), Keeps()
    call = a_call(meters=(keeps,))
    with UsageTracker(account) as usage:
        assert await collect(meter(account)(ScriptedService(RUN)), call) == RUN
    stats = usage.get_stats()
    assert (stats["api_calls"], stats["cache_hits"], stats["total_tokens"]) == (2, 1, 1_000_015)
    assert stats["total_cost"] == 2.5, "the second was priced here"
    assert stats["by_predictor"]["a"]["cached_tokens"] == 4
    assert stats["estimated_tokens"] == 1_000_000
    first = keeps.records[0]
    assert (first.run, first.program, first.key, first.lm_call) == (call.id, "Rag", "team", 1)
    assert first.ttft is not None


async def test_a_run_that_fails_or_tells_nothing_is_an_exchange_too() -> None:
    account = Account()
    with pytest.raises(ValueError, match="no"):
        await collect(meter(account)(ScriptedService([RUN[0], ValueError("no")])), a_call(model="remote"))
    await collect(meter(account)(ScriptedService([RUN[0], RUN[-1]])), a_call(model="remote"))
    stats = UsageTracker(account).get_stats()
    assert (stats["api_calls"], stats["errors"], stats["unpriced_calls"]) == (2, 1, 0)
    assert list(stats["by_model"]) == ["remote"]


async def test_a_reader_that_leaves_early_has_used_what_was_told_until_then() -> None:
    account = Account()
    async with read(meter(account)(ScriptedService([*RUN[:3], Wait(60)])), a_call()) as reader:
        assert [await anext(reader) for _ in range(3)] == RUN[:3]
    stats = UsageTracker(account).get_stats()
    assert (stats["api_calls"], stats["errors"], stats["total_tokens"]) == (2, 1, 15)


async def test_a_spent_budget_is_asked_before_and_told_after() -> None:
    budget, inner = Budget(max_tokens=1_000_000), ScriptedService(RUN)
    service = budget(meter(Account())(inner))
    await collect(service, a_call())
    assert budget.spent["tokens"] == 1_000_015
    with pytest.raises(BudgetExceeded):
        await collect(service, a_call())
    assert len(inner.attempts) == 1
