"""Identical calls share one run; nobody depends on another caller's staying or speed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, Cancelled, LMFailed, Stop
from dspy_live.core.events import Completion, Predicted, Result, Started, TextDelta, Token
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers import single_flight
from dspy_live.layers.single_flight import SingleFlight
from dspy_live.runtime.channel import read
from dspy_live.testing.scripted import Recorder, ScriptedService, Wait, collect
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
    assert len(script.attempts) == 1
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
        collect(service, Call({"q": 1}, program="other")),
        collect(service, Call({"q": 1}, version="other")),
        collect(service, Call({"q": 1}, model="other")),
        collect(service, Call({})),
        collect(service, Call({})),
    )
    assert len(script.attempts) == 8
    await collect(service, Call({"q": 1}))
    assert len(script.attempts) == 9


@virtual_time
async def test_by_default_inputs_arguments_and_options_make_two_calls_identical() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    service = SingleFlight()(script)
    questions: list[dict[str, Any]] = [{"inputs": {"q": 1}}, {"args": (1,)}, {"args": (2,)}, {"config": {"n": 1}}]
    await asyncio.gather(*(collect(service, Call(**question)) for question in questions * 2))
    assert len(script.attempts) == 4


@virtual_time
async def test_a_service_that_is_wrapped_for_each_call_shares_all_the_same() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    layer = SingleFlight()
    calls = [Call({"messages": [{"b": 1, "a": 2}]}, model=model) for model in "xxy"]
    await asyncio.gather(*(collect(layer(script), call) for call in calls))
    assert len(script.attempts) == 2
    assert layer.statistics().joined == 1


@virtual_time
async def test_inputs_that_are_no_json_are_like_no_others() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    thing = object()
    await asyncio.gather(*(collect(SingleFlight()(script), Call({"q": thing})) for _ in range(2)))
    assert len(script.attempts) == 2


@virtual_time
async def test_when_the_first_leaves_the_others_go_on() -> None:
    script = ScriptedService()
    service = by_question()(script)
    leader = asyncio.create_task(collect(service, Call({"q": 1})))
    attempt = await script.attempt()
    follower = asyncio.create_task(collect(service, Call({"q": 1})))
    attempt.send(TextDelta("a"))
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.wait([leader])
    attempt.send(TextDelta("b"))
    attempt.end(Completion({}))
    assert await follower == [TextDelta("a"), TextDelta("b"), Completion({})]


@virtual_time
async def test_when_the_last_leaves_the_run_is_cancelled_and_waited_for() -> None:
    script = ScriptedService(hold_exit=True)
    layer = by_question()
    service = layer(script)
    tasks = [asyncio.create_task(collect(service, Call({"q": 1}))) for _ in range(2)]
    attempt = await script.attempt()
    for task in tasks:
        task.cancel()
    await asyncio.sleep(1)
    assert attempt.state == "leaving"
    assert tasks[0].done()
    assert not tasks[1].done()
    # Who comes now does not join a run that is ending.
    again = asyncio.create_task(collect(service, Call({"q": 1})))
    second = await script.attempt(1)
    attempt.may_end.set()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    second.may_end.set()
    second.end()
    assert await again == [Predicted({})]
    assert layer.statistics().active == 0


@virtual_time
async def test_a_slow_reader_holds_no_other_up_and_misses_nothing() -> None:
    events = [token(str(n)) for n in range(500)]
    script = ScriptedService([*events, Predicted({})])
    service = by_question()(script)
    slow = Recorder(bound=1)
    task = asyncio.create_task(service(Call({"q": 1}), slow))
    assert await collect(service, Call({"q": 1})) == [*events, Predicted({})]
    assert asyncio.get_running_loop().time() == 0
    for taken in range(1, 501):
        assert slow.events == events[:taken]
        slow.drain()
        await asyncio.sleep(10)
    assert await task == Predicted({})


@virtual_time
async def test_a_late_caller_catches_up_and_gets_the_rest_as_it_comes() -> None:
    script = ScriptedService()
    service = by_question()(script)
    first, late = Recorder(), Recorder()
    tasks = [asyncio.create_task(service(Call({"q": 1}), first))]
    attempt = await script.attempt()
    attempt.send(token("a"), token("b"))
    tasks.append(asyncio.create_task(service(Call({"q": 1}), late)))
    await asyncio.sleep(1)
    assert late.events == [token("a"), token("b")]
    attempt.send(token("c"))
    assert late.events == first.events == [token("a"), token("b"), token("c")], "without a turn of the loop between"
    attempt.end()
    await asyncio.gather(*tasks)


@virtual_time
async def test_when_all_are_behind_the_run_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "AHEAD", 4)
    script = ScriptedService([*(token(str(n)) for n in range(20)), Predicted({})])
    service = by_question()(script)
    sinks = [Recorder(bound=1), Recorder(bound=2)]
    tasks = [asyncio.create_task(service(Call({"q": 1}), sink)) for sink in sinks]
    attempt = await script.attempt()
    await asyncio.sleep(1)
    assert [len(sink.events) for sink in sinks] == [1, 2]
    assert len(attempt.sent) == 6, "four ahead of the one that is furthest"
    sinks[0].drain()
    await asyncio.sleep(1)
    assert len(attempt.sent) == 6, "the other one is still the furthest"
    sinks[1].drain()
    await asyncio.sleep(1)
    assert len(attempt.sent) == 8
    while not all(task.done() for task in tasks):
        for sink in sinks:
            sink.drain()
        await asyncio.sleep(1)
    assert sinks[0].events == sinks[1].events == attempt.sent
    assert len(attempt.sent) == 20


@virtual_time
async def test_when_the_furthest_leaves_the_run_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "AHEAD", 4)
    script = ScriptedService()
    service = by_question()(script)
    quick = asyncio.create_task(service(Call({"q": 1}), DISCARD))
    slow = Recorder(bound=1)
    task = asyncio.create_task(service(Call({"q": 1}), slow))
    attempt = await script.attempt()
    await asyncio.sleep(1)
    attempt.send(*(token(str(n)) for n in range(10)))
    assert not attempt.full
    quick.cancel()
    await asyncio.wait([quick])
    attempt.send(token("10"))
    assert attempt.full
    task.cancel()
    await asyncio.wait([task])
    assert attempt.cancelled


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
async def test_a_run_that_is_cancelled_from_elsewhere_is_no_cancellation_of_its_callers() -> None:
    async def cancels_itself(call: Call, sink: Sink) -> Result:
        await asyncio.sleep(1)
        raise asyncio.CancelledError

    service = by_question()(cancels_itself)
    results = await asyncio.gather(*(collect(service, Call({"q": 1})) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(result, Cancelled) for result in results)


@virtual_time
async def test_a_cancelled_read_takes_nothing() -> None:
    script = ScriptedService([Wait(2), token("a"), Predicted({})])
    async with read(by_question()(script), Call({"q": 1})) as reader:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.receive_many(), 1)
        assert [event async for event in reader] == [token("a")]
        assert reader.result == Predicted({})


@virtual_time
async def test_a_failure_after_the_last_has_left_is_nobodys() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    async def fails_when_it_is_cancelled(call: Call, sink: Sink) -> Result:
        try:
            await asyncio.sleep(60)
        finally:
            raise LMFailed("on the way out")

    task = asyncio.create_task(collect(by_question()(fails_when_it_is_cancelled), Call({"q": 1})))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    del task  # its traceback holds the run
    gc.collect()
    assert reports == []
