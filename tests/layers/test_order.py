"""The order of layers: what works, what is refused, and that the reasons given are true."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, DeadlineExceeded, LMFailed, Overloaded
from dspy_live.core.events import Completion, Predicted, Result
from dspy_live.core.service import compose
from dspy_live.core.sink import Sink
from dspy_live.layers.adaptive import Adaptive
from dspy_live.layers.breaker import Breaker
from dspy_live.layers.deadline import Deadline
from dspy_live.layers.detached import Detached
from dspy_live.layers.fallback import Fallback
from dspy_live.layers.limit import Limit
from dspy_live.layers.rate import Rate
from dspy_live.layers.retry import Retry
from dspy_live.layers.shed import Shed
from dspy_live.layers.single_flight import SingleFlight
from dspy_live.layers.timeouts import Timeouts
from dspy_live.runtime.runtime import Runtime
from dspy_live.runtime.scope import ended
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.sansio.limits.order import ONCE, RECOMMENDED, RULES, check_order
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time

MAKE = {
    "shed": lambda: Shed(100),
    "deadline": lambda: Deadline(30),
    "detached": lambda: Detached(),
    "single_flight": lambda: SingleFlight(lambda call: call.inputs.get("q")),
    "fallback": lambda: Fallback(ScriptedService([Completion({"other": 1})])),
    "retry": lambda: Retry(),
    "breaker": lambda: Breaker(),
    "rate": lambda: Rate(requests_per_minute=60),
    "limit": lambda: Limit(10),
    "adaptive": lambda: Adaptive(),
    "timeouts": lambda: Timeouts(first_token=10),
}


def test_the_recommended_order_is_allowed_and_every_kind_is_known() -> None:
    assert set(MAKE) == set(RECOMMENDED)
    assert all(getattr(make(), "kind") == kind for kind, make in MAKE.items())  # noqa: B009
    check_order([MAKE[kind]() for kind in RECOMMENDED])
    check_order([])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.outer}>{rule.inner}")
def test_each_pair_is_refused_one_way_round_and_allowed_the_other(rule) -> None:
    check_order([MAKE[rule.outer](), MAKE[rule.inner]()])
    with pytest.raises(ConfigurationError) as info:
        check_order([MAKE[rule.inner](), MAKE[rule.outer]()])
    assert rule.why in str(info.value)
    assert f"from the outside in: {rule.outer} > {rule.inner}" in str(info.value)


def test_every_rule_agrees_with_the_recommended_order() -> None:
    for rule in RULES:
        assert RECOMMENDED.index(rule.outer) < RECOMMENDED.index(rule.inner)


@pytest.mark.parametrize("kind", ONCE)
def test_a_layer_that_multiplies_may_stand_in_the_list_once(kind: str) -> None:
    with pytest.raises(ConfigurationError, match="2 times"):
        check_order([MAKE[kind](), MAKE[kind]()])


def test_a_retry_around_the_lm_and_another_around_the_program_multiply() -> None:
    with pytest.raises(ConfigurationError, match="retry stands 2 times"):
        check_order([Retry()], [Retry()])
    check_order([Limit(1), Deadline(5)][::-1], [Retry(), Limit(1)])


def test_a_runtime_refuses_a_surprising_order() -> None:
    Runtime(layers=[Deadline(5), Limit(1)], lm_layers=[Retry(), Timeouts(first_token=1)])
    for wrong in ({"layers": [Limit(1), Deadline(5)]}, {"lm_layers": [Timeouts(idle=1), Retry()]}):
        with pytest.raises(ConfigurationError, match="from the outside in"):
            Runtime(**wrong)


def test_several_limits_are_fine_and_every_one_is_looked_at() -> None:
    check_order([Retry(), Limit(10), Limit(5)])
    with pytest.raises(ConfigurationError, match="retry must stand before"):
        check_order([Limit(10), Retry(), Limit(5)])


def test_layers_of_ones_own_may_stand_anywhere() -> None:
    check_order([lambda service: service, Retry(), lambda service: service, Limit(1)])


@virtual_time
async def test_all_layers_together_around_one_service() -> None:
    layers = [MAKE[kind]() for kind in RECOMMENDED]
    script = ScriptedService(LMFailed("down"), [Wait(20)], [Wait(1), Completion({})])
    assert await collect(compose(script, layers), Call({"q": 1})) == [Completion({})]
    assert len(script.attempts) == 3
    for layer in layers:
        statistics = layer.statistics()
        assert getattr(statistics, "active", 0) == 0


# The reasons carry numbers; here they are measured, each on the wrong order.


@virtual_time
async def test_a_deadline_inside_of_retry_has_its_time_for_each_try() -> None:
    script = ScriptedService([Wait(29), LMFailed("down")])
    wrong = compose(script, [Retry(3, chance=lambda: 0.0), Deadline(30)])
    with pytest.raises(LMFailed):
        await collect(wrong, Call({}))
    assert asyncio.get_running_loop().time() == 87
    with pytest.raises(DeadlineExceeded):
        await collect(compose(script, [Deadline(30), Retry(3, chance=lambda: 0.0)]), Call({}))
    assert asyncio.get_running_loop().time() == 117


@virtual_time
async def test_a_retry_inside_of_a_limit_blocks_its_slots() -> None:
    backoff = Backoff(base=30)
    for layers, expected in (
        ([Limit(10), Retry(2, backoff=backoff, chance=lambda: 1.0)], 30),
        ([Retry(2, backoff=backoff, chance=lambda: 1.0), Limit(10)], 0),
    ):
        script = ScriptedService(*[LMFailed("down")] * 10, [Completion({})])
        service = compose(script, layers)
        began = asyncio.get_running_loop().time()
        failing = [asyncio.create_task(collect(service, Call({}))) for _ in range(10)]
        await asyncio.sleep(0)
        await collect(service, Call({}))
        assert asyncio.get_running_loop().time() - began == expected
        await asyncio.gather(*failing)


@virtual_time
async def test_identical_calls_inside_of_a_limit_fill_it_with_one_run() -> None:
    for layers, running in (
        ([Limit(10), MAKE["single_flight"]()], 1),
        ([MAKE["single_flight"](), Limit(10)], 2),
    ):
        script = ScriptedService([Wait(1), Completion({})])
        service = compose(script, layers)
        tasks = [asyncio.create_task(collect(service, Call({"q": q}))) for q in (*[1] * 10, 2)]
        await asyncio.sleep(0.5)
        assert script.active == running
        await asyncio.gather(*tasks)


@virtual_time
async def test_a_fallback_inside_of_retry_makes_six_calls() -> None:
    for retry_outside, calls in ((True, 6), (False, 4)):
        first, other = ScriptedService(LMFailed("a")), ScriptedService(LMFailed("b"))
        layers = [Retry(3, chance=lambda: 0.0), Fallback(other)]
        service = compose(first, layers if retry_outside else layers[::-1])
        with pytest.raises(LMFailed):
            await collect(service, Call({}))
        assert len(first.attempts) + len(other.attempts) == calls


class Blocked:
    """A program in a thread that nobody can stop: it goes on for ``seconds``, whoever cancels it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.active = 0
        self.most = 0

    async def __call__(self, call: Call, sink: Sink) -> Result:
        self.active += 1
        self.most = max(self.most, self.active)
        await ended(asyncio.ensure_future(asyncio.sleep(self.seconds)))
        self.active -= 1
        return Predicted({})


@virtual_time
async def test_a_deadline_inside_of_detached_waits_for_the_thread() -> None:
    for layers, expected in (([Detached(), Deadline(1)], 30), ([Deadline(1), Detached()], 1.1)):
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await collect(compose(Blocked(30), layers), Call({}))
        assert asyncio.get_running_loop().time() - began == pytest.approx(expected)
    await asyncio.sleep(60)


@virtual_time
async def test_detached_inside_of_a_limit_frees_slots_whose_threads_go_on() -> None:
    for layers, most in (([Limit(10), Detached()], 20), ([Detached(), Limit(10)], 10)):
        work = Blocked(30)
        service = compose(work, layers)
        for _ in range(2):
            tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(10)]
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert work.most == most
        await asyncio.sleep(60)


@virtual_time
async def test_shed_inside_of_detached_makes_a_task_for_each_refused_call() -> None:
    for layers, made in (([Detached(), Shed(1)], 1000), ([Shed(1), Detached()], 0)):
        service = compose(Blocked(30), layers)
        running = asyncio.create_task(collect(service, Call({})))
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        before = _count_tasks(loop)
        for _ in range(1000):
            with pytest.raises(Overloaded):
                await collect(service, Call({}))
        assert len(before) == made
        loop.set_task_factory(None)
        await running


def _count_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task]:
    made: list[asyncio.Task] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task:
        made.append(asyncio.Task(coro, loop=loop, **options))
        return made[-1]

    loop.set_task_factory(factory)
    return made


def test_the_guide_lists_every_refused_pair() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "layers.md").read_text()
    rows = re.findall(r"^\| `(\w+)` outside of `(\w+)` \| (.+?) \|$", guide, re.MULTILINE)
    assert rows == [(rule.outer, rule.inner, rule.why) for rule in RULES]
