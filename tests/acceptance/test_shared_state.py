"""What processes share through a server holds for whole programs, in each way that they can run."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from tests.acceptance.test_resilience import CASES, NAMES, QA, Gathers, InOurThreads, InThreads, ModuleBatch
from tests.programs.conftest import HeldSim, Sim, held, paced, sim  # noqa: F401  (fixtures)
from tests.programs.lm.test_usage_end_to_end import Own
from tests.support.databases import Server
from tests.support.until import BOUND, async_until

from dspy_live import Runtime, asyncify, batch, streamify
from dspy_live.core.errors import BudgetExceeded, RateLimited
from dspy_live.layers import SharedBudget, SharedLimit, SharedRate, SharedSingleFlight
from dspy_live.layers.shared_budget import BudgetUnreachable
from dspy_live.runtime.stores import line

SIDE_BY_SIDE = (Gathers, InThreads, InOurThreads, ModuleBatch)


@pytest.mark.parametrize(("make", "way"), CASES, ids=NAMES)
async def test_a_shared_budget_is_exact_and_not_swallowed(sim: Sim, make: Any, way: Any, redis_url: str) -> None:  # noqa: F811
    budget = SharedBudget(redis_url, "team", max_calls=3, timeout=BOUND)
    call = asyncify(make(), execution=way, runtime=Runtime(layers=[budget]))
    with dspy.context(lm=sim.lm(num_retries=0)), pytest.raises(BudgetExceeded):
        await call(question="Why?")
    # Of calls side by side the refused one ends the run, and with it those that were let through.
    asked = sim.server.stats.requests
    assert asked <= 3 if make in SIDE_BY_SIDE else asked == 3
    assert await asyncio.to_thread(budget.sync)
    assert asked <= budget.spent["calls"] <= 3


async def test_all_doors_share_one_budget(sim: Sim, redis_url: str) -> None:  # noqa: F811
    def runtime() -> Runtime:
        line._lines.clear()  # as if each were another process's
        return Runtime(layers=[SharedBudget(redis_url, "team", max_calls=11, timeout=BOUND)])

    program = dspy.Predict(QA)

    async def stream(question: str) -> None:
        async for _ in streamify(program, runtime=one)(question=question):
            pass

    one, other, third = runtime(), runtime(), runtime()
    with dspy.context(lm=sim.lm(num_retries=0)):
        calls = [asyncify(program, runtime=other)(question=f"a{n}") for n in range(20)]
        results = await asyncio.gather(*calls, *(stream(f"b{n}") for n in range(20)), return_exceptions=True)
        rows = [{"question": f"c{n}"} for n in range(5)]
        await asyncio.to_thread(batch, program, rows, runtime=third, on_error="return", progress=False)
    assert all(result is None or isinstance(result, (dspy.Prediction, BudgetExceeded)) for result in results)
    assert sim.server.stats.requests == 11


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_synchronous_lm_of_the_users_own_waits_in_its_thread(redis_url: str) -> None:
    budgets = []
    for _ in range(2):
        line._lines.clear()
        budgets.append(SharedBudget(redis_url, "team", max_calls=5, timeout=BOUND))
    program = dspy.Predict(QA)
    lm = Own()
    with dspy.context(lm=lm):
        calls = [
            asyncify(program, runtime=Runtime(layers=[budgets[n % 2]]), execution="thread")(question=f"{n}")
            for n in range(20)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert lm.asked == 5
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 15


async def test_limits_around_lms_hold_for_programs_of_several_processes(paced: Sim, redis_url: str) -> None:  # noqa: F811
    runtimes = []
    for _ in range(2):
        line._lines.clear()
        rate = SharedRate(redis_url, "lm", requests_per_minute=9, max_wait=5, timeout=BOUND)
        runtimes.append(Runtime(lm_layers=[rate, SharedLimit(redis_url, "lm", 3, timeout=BOUND)]))
    most = 0
    with dspy.context(lm=paced.lm(num_retries=0)):
        calls = [asyncify(dspy.Predict(QA), runtime=runtimes[n % 2])(question=f"{n}") for n in range(14)]
        running = asyncio.gather(*calls, return_exceptions=True)
        while not running.done():
            most = max(most, paced.server.stats.active)
            await asyncio.sleep(0.002)
    results = running.result()
    assert sum(isinstance(result, RateLimited) for result in results) == 5, results
    assert paced.server.stats.requests == 9
    assert 1 <= most <= 3


async def test_identical_programs_of_several_processes_are_run_once(held: HeldSim, redis_url: str) -> None:  # noqa: F811
    program = dspy.Predict(QA)
    calls, layers = [], []
    for _ in range(3):
        line._lines.clear()
        layers.append(SharedSingleFlight(redis_url, "answers", timeout=BOUND))
        calls += [asyncify(program, runtime=Runtime(layers=[layers[-1]]))] * 2
    with dspy.context(lm=held.lm(num_retries=0)):
        asking = asyncio.gather(*(call(question="Why?") for call in calls))
        await async_until(lambda: sum(layer.statistics().following for layer in layers) == 2)
        await async_until(lambda: sum(layer.statistics().joined for layer in layers) == 3)
        held.server.release()
        answers = [result.answer for result in await asking]
    assert len(set(answers)) == 1
    assert held.server.arrived == 1


async def test_without_its_server_a_strict_budget_sends_nothing(sim: Sim, redis_server: Server) -> None:  # noqa: F811
    budget = SharedBudget(f"redis://127.0.0.1:{redis_server.port}", "team", max_calls=3, on_outage="refuse")
    redis_server.stop()
    with dspy.context(lm=sim.lm(num_retries=0)), pytest.raises(BudgetUnreachable) as refused:
        await asyncify(dspy.Predict(QA), runtime=Runtime(layers=[budget]))(question="Why?")
    assert refused.value.status == 503
    assert sim.server.stats.requests == 0
