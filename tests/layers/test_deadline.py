"""A call has so many seconds, and everything inside knows what is left."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, DeadlineExceeded
from dspy_live.core.events import Completion, TextDelta
from dspy_live.layers.deadline import Deadline
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5", True])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="seconds must be a number above 0"):
        Deadline(seconds)


@virtual_time
async def test_a_call_in_time_is_untouched() -> None:
    script = ScriptedService([Wait(4), TextDelta("a"), Completion({})])
    layer = Deadline(5)
    assert await collect(layer(script), Call({})) == [TextDelta("a"), Completion({})]
    assert script.calls[0].deadline == 5
    assert layer.statistics().exceeded == 0


@virtual_time
async def test_it_ends_the_call_and_the_work_and_leaves_the_task_intact() -> None:
    script = ScriptedService([TextDelta("a"), Wait(60), Completion({})])
    layer = Deadline(5)
    with pytest.raises(DeadlineExceeded, match="longer than the 5 s"):
        await collect(layer(script), Call({}))
    assert now() == 5
    assert script.openings[0].state == "ended"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert layer.statistics().exceeded == 1


@virtual_time
async def test_the_calls_own_earlier_deadline_holds() -> None:
    script = ScriptedService([Wait(60)])
    with pytest.raises(DeadlineExceeded, match="longer than the 2 s"):
        await collect(Deadline(5)(script), Call({}, deadline=2))
    assert now() == 2
    assert script.calls[0].deadline == 2


@virtual_time
async def test_the_calls_own_later_deadline_does_not() -> None:
    script = ScriptedService([Wait(60)])
    with pytest.raises(DeadlineExceeded, match="longer than the 5 s"):
        await collect(Deadline(5)(script), Call({}, deadline=30))
    assert script.calls[0].deadline == 5


@virtual_time
async def test_a_deadline_in_the_past_opens_nothing() -> None:
    await asyncio.sleep(10)
    script = ScriptedService([Completion({})])
    with pytest.raises(DeadlineExceeded, match="7 s before it was opened"):
        await collect(Deadline(5)(script), Call({}, deadline=3))
    assert script.openings == []


@virtual_time
async def test_a_cancellation_from_outside_stays_one() -> None:
    script = ScriptedService()
    task = asyncio.create_task(collect(Deadline(5)(script), Call({})))
    await script.opening()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.openings[0].state == "ended"
    assert now() == 0


@virtual_time
async def test_it_waits_for_a_slow_end_of_the_work() -> None:
    script = ScriptedService(hold_exit=True)
    task = asyncio.create_task(collect(Deadline(5)(script), Call({})))
    opening = await script.opening()
    await asyncio.sleep(6)
    assert opening.state == "left"
    assert not task.done()
    opening.may_end.set()
    with pytest.raises(DeadlineExceeded):
        await task


@virtual_time
async def test_the_inner_receiver_is_handed_through() -> None:
    script = ScriptedService([Completion({})])
    async with Deadline(5)(script).open(Call({})) as receiver:
        assert receiver._channel is script.openings[0].channel
