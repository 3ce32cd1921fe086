"""A limit that follows what the service can take."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, InputError, LMFailed, RateLimited
from dspy_live.core.events import Completion, Result, TextDelta
from dspy_live.core.service import Service
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers.adaptive import Adaptive
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time


@pytest.mark.parametrize(
    "bad",
    [{"low": 0}, {"high": 0}, {"low": 5, "high": 4}, {"start": 2000}, {"decrease": 1}, {"decrease": 0}, {"slow": 0}],
)
def test_bad_values_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigurationError):
        Adaptive(**bad)


async def load(layer: Adaptive, script: Service, workers: int, calls: int) -> None:
    async def work() -> None:
        for _ in range(calls):
            try:
                await collect(layer(script), Call({}))
            except (RateLimited, InputError, LMFailed):
                pass

    await asyncio.gather(*(work() for _ in range(workers)))


@virtual_time
async def test_it_grows_by_about_one_a_round_while_in_use() -> None:
    layer = Adaptive(1, 8)
    script = ScriptedService([Wait(1), Completion({})])
    await load(layer, script, 20, 1)
    assert 4 <= layer.limit <= 6  # after rounds of 1, 2, 3, 4, 5 calls
    await load(layer, script, 20, 3)
    assert layer.limit == 8
    assert script.most_active == 8


@virtual_time
async def test_the_limit_does_not_grow_while_it_is_not_used() -> None:
    layer = Adaptive(1, 100, start=10)
    await load(layer, ScriptedService([Wait(1), Completion({})]), 1, 50)
    assert layer.limit == 10


@virtual_time
async def test_a_burst_of_429_makes_it_fall_once() -> None:
    layer = Adaptive(1, 100, start=50, decrease=0.5)
    await load(layer, ScriptedService([Wait(1), RateLimited("429")]), 50, 1)
    assert layer.limit == 25
    assert layer.statistics().decreases == 1
    await load(layer, ScriptedService(RateLimited("429")), 1, 20)
    assert layer.limit == 1


@virtual_time
async def test_the_callers_mistakes_and_cancellations_mean_nothing() -> None:
    layer = Adaptive(1, 100, start=10)
    await load(layer, ScriptedService(InputError("bad")), 5, 5)
    script = ScriptedService()
    tasks = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(10)]
    await script.attempt(9)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert layer.limit == 10
    assert layer.statistics().slots.active == 0


@virtual_time
async def test_a_first_token_that_is_slow_counts_as_overload() -> None:
    layer = Adaptive(1, 100, start=10, decrease=0.5, slow=2)
    await load(layer, ScriptedService([Wait(3), TextDelta("a"), Completion({})]), 1, 1)
    assert layer.limit == 5
    await load(layer, ScriptedService([Wait(1), TextDelta("a"), Wait(60), Completion({})]), 1, 1)
    assert layer.limit == 5
    await load(layer, ScriptedService([Wait(3), Completion({})]), 1, 1)  # one that says nothing before its result
    assert layer.limit == 2


@virtual_time
async def test_an_overload_that_is_told_after_the_first_token_counts() -> None:
    layer = Adaptive(1, 100, start=10, decrease=0.5, slow=2)
    await load(layer, ScriptedService([TextDelta("a"), Wait(60), RateLimited("429")]), 1, 1)
    assert layer.limit == 5


@virtual_time
async def test_without_slow_the_callers_own_sink_is_handed_through() -> None:
    script = ScriptedService([Completion({})])
    await Adaptive()(script)(Call({}), DISCARD)
    assert script.attempts[0].sink is DISCARD


@virtual_time
async def test_the_limit_settles_near_the_services_capacity() -> None:
    capacity, active, refused = 12, 0, 0

    async def server(call: Call, sink: Sink) -> Result:
        nonlocal active, refused
        if active >= capacity:
            refused += 1
            raise RateLimited("429")
        active += 1
        try:
            await asyncio.sleep(1)
            return Completion({})
        finally:
            active -= 1

    layer = Adaptive(1, 200)
    await load(layer, server, 60, 50)
    assert 8 <= layer.limit <= 13
    assert refused < 150  # of 3000 calls
