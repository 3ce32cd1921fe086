"""Budgets: checked before, counted after, and told in figures."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, ConfigurationError
from dspy_live.core.events import Predicted, Result
from dspy_live.core.service import Service
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.layers.budget import Budget, BudgetAlert, per_call, per_key
from dspy_live.runtime.books.account import Account


def used(tokens: int = 0, cost: float | None = 0.0, **more: Any) -> LMRecord:
    return LMRecord(model=more.pop("model", "m"), usage=LMUsage(tokens, 0, tokens), cost=cost, **more)


class Program:
    """Asks an LM ``lm_calls`` times, as the engine does it: admit, wait, record."""

    def __init__(self, account: Account, lm_calls: int = 1, record: LMRecord | None = None) -> None:
        self.account = account
        self.lm_calls = lm_calls
        self.record = record or used(10, 0.1)
        self.sent = 0

    async def __call__(self, call: Call, sink: Sink) -> Result:
        for _ in range(self.lm_calls):
            meters = self.account.admit(call.meters)
            self.sent += 1
            await asyncio.sleep(0)
            self.account.record(self.record, meters)
        return ANSWER


ANSWER = Predicted({"answer": "42"})


async def ask(service: Service, call: Call | None = None) -> Result:
    return await service(call or Call({}), DISCARD)


@pytest.mark.parametrize(
    ("limit", "record", "message"),
    [
        ({"max_cost": 0.2}, used(1, 0.1), r"\$0\.2000 of \$0\.2000"),
        ({"max_tokens": 2000}, used(1000), r"2,000 tokens of 2,000 tokens"),
        ({"max_calls": 2}, used(), r"2 calls of 2 calls"),
    ],
)
def test_a_spent_limit_refuses_and_says_how_much(limit: dict[str, Any], record: LMRecord, message: str) -> None:
    budget = Budget(**limit, name="team A")
    for _ in range(2):
        budget.check()
        budget.record(record)
    with pytest.raises(BudgetExceeded, match=message) as caught:
        budget.check()
    assert "team A" in caught.value.message
    assert caught.value.details["spent"] == caught.value.details["limit"] == next(iter(limit.values()))
    assert caught.value.status == 402


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "5"])
@pytest.mark.parametrize("name", ["max_cost", "max_tokens", "max_calls"])
def test_limits_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Budget(**{name: value})


@pytest.mark.parametrize("share", [0, -0.5, 1.1, float("nan"), True, "half"])
def test_alert_at_is_a_share(share: Any) -> None:
    with pytest.raises(ConfigurationError, match="alert_at"):
        Budget(max_calls=1, alert_at=share)


def test_a_budget_without_a_limit_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        Budget()
    with pytest.raises(ConfigurationError, match="unpriced"):
        Budget(max_calls=1, unpriced="maybe")  # type: ignore[arg-type]


def test_the_alert_comes_once_per_limit_at_its_share() -> None:
    heard: list[BudgetAlert] = []
    budget = Budget(max_tokens=100, max_calls=10, on_alert=heard.append, alert_at=0.5)
    for _ in range(4):
        budget.record(used(12))
    assert heard == []
    for _ in range(4):
        budget.record(used(12))
    assert [(a.unit, a.spent, a.limit) for a in heard] == [("tokens", 60, 100), ("calls", 5, 10)]
    budget.reset()
    budget.record(used(50))
    assert len(heard) == 3
    assert "50 tokens of 100 tokens (50%)" in heard[-1].message


def test_an_alert_that_fails_does_not_fail_the_call(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: BudgetAlert) -> None:
        raise ZeroDivisionError

    budget = Budget(max_calls=1, on_alert=broken)
    budget.record(used())
    assert "on_alert of budget failed" in caplog.text
    assert budget.spent["calls"] == 1


def test_without_on_alert_a_warning_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Budget(max_calls=1).record(used())
    assert "1 calls of 1 calls (100%)" in caplog.text


def test_cached_answers_are_free() -> None:
    budget = Budget(max_calls=1)
    budget.record(used(cache="hit"))
    budget.check()
    assert budget.remaining == {"calls": 1}


def test_an_unknown_price_is_named_once_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    lenient, strict = Budget(max_cost=1.0), Budget(max_cost=1.0, unpriced="refuse")
    for budget in (lenient, strict):
        budget.record(used(10, None, model="acme/x"))
        budget.record(used(10, None, model="acme/x"))
    lenient.check()
    assert caplog.text.count("acme/x") == 1
    with pytest.raises(BudgetExceeded, match="acme/x has no known price"):
        strict.check()


async def test_a_run_is_stopped_in_the_middle_when_the_budget_is_spent() -> None:
    account = Account()
    program = Program(account, lm_calls=10)
    budget = Budget(max_calls=4)
    with pytest.raises(BudgetExceeded):
        await ask(budget(program))
    assert program.sent == 4
    with pytest.raises(BudgetExceeded):
        await ask(budget(program))
    assert program.sent == 4


async def test_a_run_that_asks_no_lm_is_refused_too_when_the_budget_is_spent() -> None:
    budget = Budget(max_calls=1)
    program = Program(Account(), lm_calls=0)
    assert await ask(budget(program)) == ANSWER
    budget.record(used())
    with pytest.raises(BudgetExceeded):
        await ask(budget(program))


async def test_calls_side_by_side_overshoot_by_no_more_than_what_is_in_flight() -> None:
    account = Account()
    program = Program(account, lm_calls=50)
    budget = Budget(max_tokens=100)
    results = await asyncio.gather(*(ask(budget(program)) for _ in range(8)), return_exceptions=True)
    assert all(isinstance(r, BudgetExceeded) for r in results)
    assert budget.spent["calls"] <= 10 + 7
    assert budget.spent["tokens"] == 10 * program.sent


async def test_each_call_can_have_a_budget_of_its_own() -> None:
    program = Program(Account(), lm_calls=3)
    service = per_call(lambda: Budget(max_calls=3))(program)
    for _ in range(3):
        assert await ask(service) == ANSWER
    with pytest.raises(BudgetExceeded):
        await ask(per_call(lambda: Budget(max_calls=2))(program))


async def test_each_key_has_its_purse() -> None:
    program = Program(Account())
    service = per_key(lambda key: Budget(max_calls=2, name=f"key {key}"))(program)
    for key in ("a", "a", "b"):
        await ask(service, Call({}, key=key))
    with pytest.raises(BudgetExceeded, match="key a"):
        await ask(service, Call({}, key="a"))
    await ask(service, Call({}, key="b"))
    await ask(service)


async def test_budgets_nest_and_one_budget_in_two_places_counts_once() -> None:
    program = Program(Account())
    outer, inner = Budget(max_calls=10), Budget(max_calls=10)
    service: Service = outer(inner(outer(program)))
    await ask(service)
    assert outer.spent["calls"] == inner.spent["calls"] == 1


async def test_a_layer_leaves_the_callers_own_call_as_it_was() -> None:
    call = Call({})
    await ask(Budget(max_calls=1)(Program(Account())), call)
    assert call.meters == ()


def test_as_a_scope_it_is_in_force_inside_only() -> None:
    from dspy_live.runtime.books.account import process_account

    account = process_account()
    budget = Budget(max_calls=1)
    with budget:
        account.record(used(), account.admit())
        with pytest.raises(BudgetExceeded):
            account.admit()
        with pytest.raises(RuntimeError, match="one scope"):
            budget.__enter__()
    account.admit()
