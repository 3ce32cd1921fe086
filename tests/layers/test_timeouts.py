"""First token and silence; the reader's own slowness does not count."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, FirstTokenTimeout, IdleTimeout
from dspy_live.core.events import Completion, Custom, Predicted, Result, Started, Status, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.layers.timeouts import Timeouts
from dspy_live.runtime.channel import read
from dspy_live.testing.scripted import Recorder, ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def test_bad_values_are_refused() -> None:
    for bad in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError, match="first_token must"):
            Timeouts(first_token=bad)
        with pytest.raises(ConfigurationError, match="idle must"):
            Timeouts(idle=bad)
    with pytest.raises(ConfigurationError, match="at least one"):
        Timeouts()


@virtual_time
async def test_an_answer_in_time_passes() -> None:
    script = ScriptedService(
        [Started("r"), Wait(1.9), TextDelta("a"), Wait(0.9), TextDelta("b"), Wait(0.9), Predicted({})]
    )
    layer = Timeouts(first_token=2, idle=1)
    assert len(await collect(layer(script), Call({}, stream=False))) == 4
    assert script.calls[0].stream
    await asyncio.sleep(10)
    assert (layer.statistics().first_token, layer.statistics().idle) == (0, 0)


@virtual_time
async def test_a_status_is_no_first_token() -> None:
    script = ScriptedService([Started("r"), Wait(1), Status("thinking"), Wait(1.5), TextDelta("a")])
    layer = Timeouts(first_token=2)
    with pytest.raises(FirstTokenTimeout, match="within 2 s"):
        await collect(layer(script), Call({}))
    assert now() == pytest.approx(2)
    assert script.attempts[0].state == "ended"
    assert layer.statistics().first_token == 1


@virtual_time
async def test_the_start_of_the_service_counts_for_the_first_token() -> None:
    inner = ScriptedService([Wait(1), TextDelta("a"), Completion({})])

    async def slow(call: Call, sink: Sink) -> Result:
        await asyncio.sleep(1.5)
        return await inner(call, sink)

    with pytest.raises(FirstTokenTimeout):
        await collect(Timeouts(first_token=2)(slow), Call({}))
    assert now() == pytest.approx(2)
    with pytest.raises(FirstTokenTimeout):
        await collect(Timeouts(first_token=1)(slow), Call({}))
    assert now() == pytest.approx(3)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time
async def test_silence_after_the_first_token() -> None:
    script = ScriptedService([Wait(5), TextDelta("a"), Wait(0.5), TextDelta("b"), Wait(1.5), TextDelta("c")])
    layer = Timeouts(idle=1)
    sink = Recorder()
    with pytest.raises(IdleTimeout, match="longer than 1 s"):
        await layer(script)(Call({}), sink)
    assert sink.events == [TextDelta("a"), TextDelta("b")]
    assert now() == pytest.approx(6.5)
    assert layer.statistics().idle == 1


@virtual_time
async def test_a_slow_reader_is_not_the_services_fault() -> None:
    script = ScriptedService([TextDelta("a"), Wait(0.5), TextDelta("b"), Wait(0.9), TextDelta("c"), Completion({})])
    sink = Recorder(bound=1)
    task = asyncio.create_task(Timeouts(first_token=1, idle=1)(script)(Call({}), sink))
    for _ in range(3):
        await asyncio.sleep(30)
        assert not task.done()
        sink.drain()
    assert await task == Completion({})


@virtual_time
async def test_a_caller_without_room_does_not_use_up_the_time_for_the_first_token() -> None:
    script = ScriptedService([Wait(0.75), Custom("full"), Wait(2), TextDelta("late")])
    sink = Recorder(bound=1)
    task = asyncio.create_task(Timeouts(first_token=1)(script)(Call({}), sink))
    await asyncio.sleep(30)
    sink.drain()
    with pytest.raises(FirstTokenTimeout):
        await task
    assert now() == pytest.approx(30.25)
    assert sink.events == [Custom("full")]


@virtual_time
async def test_only_while_no_source_waits_for_room_is_it_silence() -> None:
    """Two LM calls of a program: one gives up while the other still waits."""

    async def two(call: Call, sink: Sink) -> Result:
        async def first() -> None:
            sink.push(TextDelta("a", 1))
            await sink.room()
            await asyncio.sleep(0.5)

        async def second() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sink.room(), 10)

        await asyncio.gather(first(), second())
        return Completion({})

    sink = Recorder(bound=1)
    task = asyncio.create_task(Timeouts(first_token=1, idle=1)(two)(Call({}), sink))
    await asyncio.sleep(50)
    sink.drain()
    assert await task == Completion({})
    assert now() == pytest.approx(50.5)


@virtual_time
async def test_pauses_that_overlap_count_once() -> None:
    async def two(call: Call, sink: Sink) -> Result:
        sink.push(Custom("full"))
        waiting = asyncio.create_task(sink.room())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sink.room(), 10)
        await waiting
        await asyncio.sleep(60)
        return Completion({})

    sink = Recorder(bound=1)
    task = asyncio.create_task(Timeouts(first_token=2)(two)(Call({}), sink))
    await asyncio.sleep(50)
    sink.drain()
    with pytest.raises(FirstTokenTimeout):
        await task
    assert now() == pytest.approx(52)


@virtual_time
async def test_an_empty_text_says_that_the_lm_is_at_work() -> None:
    """An agent's LM that only calls a tool says no word: it was stopped as if it had not begun."""
    layer = Timeouts(first_token=2, idle=2)
    at_work = TextDelta("")
    script = ScriptedService([Wait(1), at_work, Wait(1.5), at_work, Wait(1.5), at_work, Wait(1.5), Completion({})])
    await collect(layer(script), Call({}))
    with pytest.raises(IdleTimeout):
        await collect(layer(ScriptedService([Wait(1), at_work, Wait(2.5), at_work])), Call({}))
    with pytest.raises(FirstTokenTimeout):
        await collect(layer(ScriptedService([Wait(2.5), at_work])), Call({}))


@virtual_time
async def test_any_event_ends_the_silence_after_the_first_token() -> None:
    script = ScriptedService([TextDelta("a"), Wait(0.9), Custom("tick"), Wait(0.9), Status("s"), Wait(0.9)])
    await collect(Timeouts(idle=1)(script), Call({}))


@virtual_time
async def test_once_the_first_token_has_come_nothing_is_measured_without_idle() -> None:
    script = ScriptedService([Wait(1), TextDelta("a"), Wait(1000), TextDelta("b"), Completion({})])
    assert len(await collect(Timeouts(first_token=2)(script), Call({}))) == 3


@virtual_time
async def test_the_errors_can_be_ones_own() -> None:
    def error(first: bool, limit: float) -> Exception:
        return LookupError("first token" if first else "idle", limit)

    layer = Timeouts(first_token=2, idle=1, error=error)
    with pytest.raises(LookupError, match=r"'first token', 2"):
        await collect(layer(ScriptedService([Wait(5)])), Call({}))
    with pytest.raises(LookupError, match=r"'idle', 1"):
        await collect(layer(ScriptedService([TextDelta("a"), Wait(5)])), Call({}))
    assert (layer.statistics().first_token, layer.statistics().idle) == (1, 1)


@virtual_time
async def test_the_task_is_intact_after_a_timeout() -> None:
    for _ in range(2):
        with pytest.raises(FirstTokenTimeout):
            await collect(Timeouts(first_token=1)(ScriptedService([Wait(10)])), Call({}))
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(5)


@virtual_time
async def test_a_reader_that_is_cancelled_takes_nothing_and_may_read_on() -> None:
    script = ScriptedService([Wait(2), TextDelta("a"), Completion({})])
    async with read(Timeouts(first_token=5)(script), Call({})) as reader:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.receive_many(), 1)
        assert [event async for event in reader] == [TextDelta("a")]
        assert reader.result == Completion({})


@virtual_time
async def test_a_late_result_of_a_service_that_swallows_the_cancellation_does_not_win() -> None:
    async def stubborn(call: Call, sink: Sink) -> Result:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            pass
        return Completion({})

    with pytest.raises(FirstTokenTimeout):
        await collect(Timeouts(first_token=1)(stubborn), Call({}))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time
async def test_a_cancellation_from_outside_stays_one() -> None:
    script = ScriptedService()
    task = asyncio.create_task(collect(Timeouts(first_token=5)(script), Call({})))
    await script.attempt()
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert task.cancelling() == 1
