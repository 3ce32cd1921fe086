"""Identical calls share one run; nobody depends on another caller's staying or speed."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import BudgetExceeded, LMFailed, Stop
from dspy_live.core.events import Completion, Predicted, Started, TextDelta, Token
from dspy_live.layers.single_flight import SingleFlight
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time


def by_question() -> SingleFlight:
    return SingleFlight(lambda call: call.inputs.get("q"))


def token(text: str) -> Token:
    return Token(text, "answer", "p", 1)


@virtual_time
async def test_identical_calls_make_one_run_and_all_see_all_of_it() -> None:
    script = ScriptedService([Started("r"), token("a"), Wait(1), token("b"), Predicted({})])
    layer = by_question()
    service = layer(script)
    calls = [Call({"q": 1}) for _ in range(5)]

    async def late(call: Call) -> list:
        await asyncio.sleep(0.5)
        return await collect(service, call)

    results = await asyncio.gather(*(collect(service, call) for call in calls[:4]), late(calls[4]))
    for call, events in zip(calls, results, strict=True):
        assert events == [Started(call.id), token("a"), token("b"), Predicted({})]
    assert len(script.openings) == 1
    statistics = layer.statistics()
    assert (statistics.runs, statistics.joined, statistics.active) == (1, 4, 0)


@virtual_time
async def test_different_calls_do_not_share_and_the_next_one_runs_anew() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    service = by_question()(script)
    await asyncio.gather(
        collect(service, Call({"q": 1})),
        collect(service, Call({"q": 2})),
        collect(service, Call({"q": 1}, stream=False)),
        collect(service, Call({"q": 1}, restartable=False)),
        collect(service, Call({})),
        collect(service, Call({})),
    )
    assert len(script.openings) == 6
    await collect(service, Call({"q": 1}))
    assert len(script.openings) == 7


@virtual_time
async def test_a_service_that_is_wrapped_for_each_call_shares_all_the_same() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    layer = SingleFlight()
    calls = [Call({"messages": [{"b": 1, "a": 2}]}, attributes={"model": model}) for model in "xxy"]
    await asyncio.gather(*(collect(layer(script), call) for call in calls))
    assert len(script.openings) == 2
    assert layer.statistics().joined == 1


@virtual_time
async def test_inputs_that_are_no_json_are_like_no_others() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    thing = object()
    await asyncio.gather(*(collect(SingleFlight()(script), Call({"q": thing})) for _ in range(2)))
    assert len(script.openings) == 2


@virtual_time
async def test_when_the_first_leaves_the_others_go_on() -> None:
    script = ScriptedService()
    service = by_question()(script)
    leader = asyncio.create_task(collect(service, Call({"q": 1})))
    opening = await script.opening()
    follower = asyncio.create_task(collect(service, Call({"q": 1})))
    opening.send(TextDelta("a"))
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.wait([leader])
    opening.send(TextDelta("b"), Completion({}))
    opening.end()
    assert await follower == [TextDelta("a"), TextDelta("b"), Completion({})]


@virtual_time
async def test_when_the_last_leaves_the_run_is_cancelled_and_waited_for() -> None:
    script = ScriptedService(hold_exit=True)
    layer = by_question()
    service = layer(script)
    tasks = [asyncio.create_task(collect(service, Call({"q": 1}))) for _ in range(2)]
    opening = await script.opening()
    for task in tasks:
        task.cancel()
    await asyncio.sleep(1)
    assert opening.state == "left"
    assert tasks[0].done()
    assert not tasks[1].done()
    # Who comes now does not join a run that is ending.
    again = asyncio.create_task(collect(service, Call({"q": 1})))
    second = await script.opening(1)
    opening.may_end.set()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    second.may_end.set()
    second.end()
    assert await again == []
    assert layer.statistics().active == 0


@virtual_time
async def test_a_slow_reader_holds_nobody_up_and_misses_nothing() -> None:
    events = [token(str(n)) for n in range(500)]
    script = ScriptedService([*events, Predicted({})])
    service = by_question()(script)
    buffer = Buffer(size=4)

    async def slow() -> list:
        seen = []
        async with service.open(Call({"q": 1}, buffer=buffer)) as receiver:
            async for event in receiver:
                seen.append(event)
                await asyncio.sleep(10)
        return seen

    task = asyncio.create_task(slow())
    assert await collect(service, Call({"q": 1}, buffer=buffer)) == [*events, Predicted({})]
    assert asyncio.get_running_loop().time() < 1
    assert await task == [*events, Predicted({})]


@virtual_time
async def test_when_all_are_behind_the_run_waits() -> None:
    script = ScriptedService()
    service = by_question()(script)
    async with service.open(Call({"q": 1}, buffer=Buffer(size=4))) as receiver:
        opening = await script.opening()
        for n in range(8):
            opening.send(token(str(n)))
            await asyncio.sleep(0.1)
        assert opening.channel.statistics().waiting > 0
        seen = []
        while len(seen) < 8:
            seen += await receiver.receive_many()
        assert [event.text for event in seen] == [str(n) for n in range(8)]
        opening.end()


@virtual_time
async def test_a_failure_reaches_everybody() -> None:
    script = ScriptedService([token("a"), Wait(1), LMFailed("down")])
    service = by_question()(script)
    results = await asyncio.gather(*(collect(service, Call({"q": 1})) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, LMFailed) for result in results)


@virtual_time
async def test_a_stop_inside_becomes_its_error() -> None:
    script = ScriptedService(Stop(BudgetExceeded("spent")))
    with pytest.raises(BudgetExceeded):
        await collect(by_question()(script), Call({"q": 1}))


@virtual_time
async def test_the_run_has_no_callers_deadline() -> None:
    script = ScriptedService([Completion({})])
    await collect(by_question()(script), Call({"q": 1}, deadline=3))
    assert script.calls[0].deadline is None


@virtual_time
async def test_a_cancelled_read_takes_nothing() -> None:
    script = ScriptedService([Wait(2), token("a"), Predicted({})])
    async with by_question()(script).open(Call({"q": 1})) as receiver:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receiver.receive_many(), 1)
        assert [event async for event in receiver] == [token("a"), Predicted({})]
