"""A call has so many seconds, and everything inside knows what is left."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, DeadlineExceeded
from dspy_live.core.events import Completion, Result, TextDelta
from dspy_live.core.sink import DISCARD, Sink
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
    assert script.attempts[0].state == "ended"
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
async def test_a_deadline_in_the_past_asks_nobody() -> None:
    await asyncio.sleep(10)
    script = ScriptedService([Completion({})])
    with pytest.raises(DeadlineExceeded, match="7 s before it began"):
        await collect(Deadline(5)(script), Call({}, deadline=3))
    assert script.attempts == []


@virtual_time
async def test_a_cancellation_from_outside_stays_one() -> None:
    script = ScriptedService()
    task = asyncio.create_task(collect(Deadline(5)(script), Call({})))
    await script.attempt()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.attempts[0].state == "ended"
    assert now() == 0


@virtual_time
async def test_it_waits_for_a_slow_end_of_the_work() -> None:
    script = ScriptedService(hold_exit=True)
    task = asyncio.create_task(collect(Deadline(5)(script), Call({})))
    attempt = await script.attempt()
    await asyncio.sleep(6)
    assert attempt.state == "leaving"
    assert not task.done()
    attempt.may_end.set()
    with pytest.raises(DeadlineExceeded):
        await task


@virtual_time
async def test_the_callers_own_sink_is_handed_through() -> None:
    script = ScriptedService([Completion({})])
    await Deadline(5)(script)(Call({}), DISCARD)
    assert script.attempts[0].sink is DISCARD


@virtual_time
async def test_without_seconds_the_calls_own_deadline_is_enforced() -> None:
    script = ScriptedService([Wait(60)])
    layer = Deadline()
    with pytest.raises(DeadlineExceeded, match="longer than the 2 s"):
        await collect(layer(script), Call({}, deadline=2))
    assert now() == 2
    await collect(layer(script), Call({}))
    assert now() == 62
    assert script.calls[1].deadline is None


@virtual_time
async def test_a_result_that_comes_late_because_the_cancellation_was_swallowed_does_not_win() -> None:
    async def deaf(call: Call, sink: Sink) -> Result:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return Completion({})

    layer = Deadline(5)
    with pytest.raises(DeadlineExceeded):
        await collect(layer(deaf), Call({}))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert layer.statistics().exceeded == 1


@virtual_time
async def test_a_timeout_of_the_code_inside_goes_through() -> None:
    with pytest.raises(TimeoutError, match="the socket's own"):
        await collect(Deadline(5)(ScriptedService([Wait(1), TimeoutError("the socket's own")])), Call({}))
