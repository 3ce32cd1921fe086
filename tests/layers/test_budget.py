"""Budgets: checked before, counted after, and told in figures."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
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
from dspy_live.runtime.books.prices import Price


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
    lenient, strict = Budget(max_cost=1.0, unpriced="allow"), Budget(max_cost=1.0)
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


class Engine:
    """Asks one LM as the engine does: expects, reserves, sends once ``go`` is set, records what was used."""

    def __init__(self, used: LMUsage, last: int | None = None) -> None:
        self.account = Account()
        self.account.prices.set({"m": Price(1.0, 2.0), "free/*": Price(0.0, 0.0)})
        self.used = used
        self.go = asyncio.Event()
        self.sent = 0
        if last is not None:
            self.account.record(LMRecord(model="m", usage=LMUsage(1, last, 1 + last)), ())

    async def __call__(self, call: Call, sink: Sink) -> Result:
        model = call.model or "m"
        meters = self.account.admit(call.meters, lambda: self.account.expect(model, 100, call.inputs.get("max_tokens")))
        self.sent += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.account.record(LMRecord(model=model, error="CancelledError"), meters)
            raise
        cost = self.account.price(model, self.used)
        self.account.record(LMRecord(model=model, usage=self.used, cost=cost), meters)
        return ANSWER


async def at_once(engine: Engine, budget: Budget, calls: int, call: Call | None = None) -> list[Any]:
    tasks = [asyncio.create_task(ask(budget(engine), call)) for _ in range(calls)]
    await asyncio.sleep(0)
    engine.go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_200_calls_at_once_make_as_many_requests_as_the_limit_says() -> None:
    """They were counted when they ended, so that all 200 had gone out before the first one counted."""
    engine, budget = Engine(LMUsage(100, 50, 150)), Budget(max_calls=7)
    results = await at_once(engine, budget, 200)
    assert engine.sent == budget.spent["calls"] == results.count(ANSWER) == 7
    refused = next(r for r in results if isinstance(r, BudgetExceeded))
    assert "0 calls of 7 calls are spent, 7 calls are reserved for calls that run" in str(refused)
    assert budget.statistics().reserved == {"cost": 0, "tokens": 0, "calls": 0}


@pytest.mark.parametrize(("completion", "over"), [(50, 0), (40, 0), (80, 6 * 30)])
async def test_tokens_and_cost_pass_the_limit_by_the_estimates_error_at_most(completion: int, over: int) -> None:
    used = LMUsage(100, completion, 100 + completion)
    engine, budget = Engine(used, last=50), Budget(max_tokens=1000)
    await at_once(engine, budget, 200)
    assert engine.sent == 6  # of 150 tokens each, as estimated
    assert budget.spent["tokens"] == 6 * used.total_tokens <= 1000 + over
    engine, budget = Engine(used, last=50), Budget(max_cost=0.001)
    await at_once(engine, budget, 200)
    assert engine.sent == 5  # of 200 millionths of a dollar each
    assert budget.spent["cost"] <= 0.001 + 5 * max(0, completion - 50) * 2e-6 + 1e-12


async def test_the_estimate_is_the_last_completion_and_max_tokens_before_there_was_one() -> None:
    account = Account()
    assert account.expect("m", 100).usage.total_tokens == 100
    assert account.expect("m", 100, 70).usage.total_tokens == 170
    account.record(LMRecord(model="m", usage=LMUsage(1, 50, 51)), ())
    account.record(LMRecord(model="m", usage=LMUsage(1, 9, 10), error="LMTimeoutError"), ())
    assert account.expect("m", 100, 70).usage.total_tokens == 150
    assert account.expect("m", 100, 30).usage.total_tokens == 130
    assert account.expect("another", 100).usage.total_tokens == 100


async def test_a_call_that_is_alone_goes_out_whatever_its_estimate() -> None:
    engine, budget = Engine(LMUsage(100, 5, 105)), Budget(max_tokens=1000)
    results = await at_once(engine, budget, 3, Call({"max_tokens": 4000}))
    assert results.count(ANSWER) == 1
    results = await at_once(engine, budget, 3, Call({"max_tokens": 4000}))
    assert results.count(ANSWER) == 3, "now it is known how long completions are"


async def test_cancelled_calls_give_their_reservation_up() -> None:
    engine, budget = Engine(LMUsage(100, 50, 150), last=50), Budget(max_tokens=450)
    tasks = [asyncio.create_task(ask(budget(engine))) for _ in range(3)]
    await asyncio.sleep(0)
    assert budget.statistics().reserved == {"cost": pytest.approx(0.0006), "tokens": 450, "calls": 3}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert budget.statistics().reserved == {"cost": 0, "tokens": 0, "calls": 0}
    assert (await at_once(engine, budget, 3)).count(ANSWER) == 3


async def test_a_call_that_the_second_budget_refuses_holds_no_place_in_the_first() -> None:
    engine, wide, narrow = Engine(LMUsage(1, 1, 2)), Budget(max_calls=10), Budget(max_calls=1)
    results = await asyncio.gather(at_once(engine, wide, 1), ask(wide(narrow(engine))), return_exceptions=True)
    assert not isinstance(results[1], BaseException)
    with pytest.raises(BudgetExceeded):
        engine.account.admit((wide, narrow))
    assert wide.statistics().reserved["calls"] == 0


async def test_a_model_without_a_price_is_not_asked_where_cost_is_limited() -> None:
    engine = Engine(LMUsage(10, 10, 20))
    (refused,) = await at_once(engine, Budget(max_cost=1), 1, Call({}, model="acme/x"))
    assert isinstance(refused, BudgetExceeded)
    assert "acme/x has no known price" in str(refused)
    assert "set_prices()" in str(refused)
    assert engine.sent == 0
    for budget in (Budget(max_cost=1, unpriced="allow"), Budget(max_tokens=100)):
        assert await at_once(engine, budget, 1, Call({}, model="acme/x")) == [ANSWER]
    assert await at_once(engine, Budget(max_cost=1), 1, Call({}, model="free/x")) == [ANSWER]


def test_threads_share_a_budget_exactly() -> None:
    budget, account = Budget(max_calls=50), Account()
    together = threading.Barrier(16)

    def work() -> int:
        sent = 0
        together.wait()
        for _ in range(20):
            try:
                meters = account.admit((budget,))
            except BudgetExceeded:
                continue
            sent += 1
            account.record(used(1), meters)
        return sent

    with ThreadPoolExecutor(16) as pool:
        assert sum(f.result() for f in [pool.submit(work) for _ in range(16)]) == 50
    assert budget.spent["calls"] == 50


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
