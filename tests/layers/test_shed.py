"""Too much to do: refused at once."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, Overloaded
from dspy_live.core.events import Completion
from dspy_live.layers.shed import Shed
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import VirtualLoop, virtual_time


@pytest.mark.parametrize("bad", [{}, {"active": 0}, {"active": -1}, {"active": 1.5}, {"lag": 0}, {"lag": float("nan")}])
def test_bad_values_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigurationError):
        Shed(**bad)


@virtual_time
async def test_it_refuses_without_a_queue_and_estimates_when_to_come_back() -> None:
    layer = Shed(2)
    await collect(layer(ScriptedService([Wait(30), Completion({})])), Call({}))
    script = ScriptedService()
    tasks = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(2)]
    await script.attempt(1)
    with pytest.raises(Overloaded, match="2 calls are inside already, and 2 may be; try again in 15 s") as info:
        await collect(layer(script), Call({}))
    assert info.value.retry_after == 15
    assert len(script.attempts) == 2
    script.attempts[0].end()
    await tasks[0]
    third = asyncio.create_task(collect(layer(script), Call({})))
    await script.attempt(2)
    for task in (tasks[1], third):
        task.cancel()
    await asyncio.wait([tasks[1], third])
    statistics = layer.statistics()
    assert (statistics.active, statistics.admitted, statistics.refused) == (0, 4, 1)


@virtual_time
async def test_a_loop_that_is_late_refuses_new_calls_until_it_is_on_time_again() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    layer = Shed(lag=0.05)
    script = ScriptedService()
    running = asyncio.create_task(collect(layer(script), Call({})))
    await script.attempt()
    loop.block(0.35)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert layer.statistics().lag == pytest.approx(0.25)
    with pytest.raises(Overloaded, match=r"event loop is 0\.25 s late, and may be 0\.05 s"):
        await collect(layer(script), Call({}))
    await asyncio.sleep(0.2)
    second = asyncio.create_task(collect(layer(script), Call({})))
    await script.attempt(1)
    for task in (running, second):
        task.cancel()
    await asyncio.wait([running, second])
    assert layer._timer is None
