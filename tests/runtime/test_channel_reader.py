"""Reading a run: its events, its result, its failure, and leaving it at any moment."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import Cancelled, Closed, LMFailed
from dspy_live.core.events import Completion, Event, Result, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.runtime.channel import Reader, read
from dspy_live.testing import ScriptedService, Wait, virtual_time

A, B = TextDelta("a"), TextDelta("b")


@virtual_time
async def test_the_events_come_and_then_the_result() -> None:
    script = ScriptedService([A, Wait(1), B, Completion({"n": 1})])
    async with read(script, Call({})) as reader:
        with pytest.raises(RuntimeError, match="no result yet"):
            _ = reader.result
        assert [event async for event in reader] == [A, B]
        assert reader.result == Completion({"n": 1})
        assert await reader.receive_many() == []
        assert [event async for event in reader] == []


@virtual_time
async def test_a_failure_comes_after_the_events_before_it_and_stays() -> None:
    async with read(ScriptedService([A, LMFailed("cut")]), Call({})) as reader:
        assert await anext(reader) == A
        for _ in range(2):
            with pytest.raises(LMFailed, match="cut"):
                await anext(reader)
        with pytest.raises(LMFailed):
            await reader.receive_many()


@virtual_time
async def test_leaving_early_cancels_the_run_and_waits_for_its_end() -> None:
    script = ScriptedService([A, Wait(60)], hold_exit=True)

    async def leave() -> None:
        async with read(script, Call({})) as reader:
            async for _ in reader:
                break

    task = asyncio.create_task(leave())
    attempt = await script.attempt()
    await asyncio.sleep(1)
    assert attempt.state == "leaving"
    assert not task.done()
    attempt.may_end.set()
    await task
    assert attempt.cancelled
    assert asyncio.get_running_loop().time() == 1


@virtual_time
async def test_a_cancelled_read_takes_nothing_and_may_be_repeated() -> None:
    async with read(ScriptedService([Wait(2), A, Completion({})]), Call({})) as reader:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.receive_many(), 1)
        assert [event async for event in reader] == [A]


@virtual_time
async def test_a_slow_reader_pauses_the_run() -> None:
    script = ScriptedService([A] * 10)
    async with read(script, Call({}), Buffer(size=2)) as reader:
        attempt = await script.attempt()
        for taken in range(1, 9):
            await anext(reader)
            await asyncio.sleep(1)
            assert len(attempt.sent) <= taken + 2
        assert reader.statistics().high_water == 2


@virtual_time
async def test_a_run_that_is_cancelled_from_elsewhere_is_no_cancellation_of_its_reader() -> None:
    async def cancels_itself(call: Call, sink: Sink) -> Result:
        raise asyncio.CancelledError

    async with read(cancels_itself, Call({})) as reader:
        with pytest.raises(Cancelled):
            await anext(reader)


@virtual_time
async def test_a_reader_that_was_left_says_so() -> None:
    reader = Reader(ScriptedService([A, Wait(60)]), Call({}))
    assert await anext(reader) == A
    await reader.aclose()
    await reader.aclose()
    with pytest.raises(Closed):
        await anext(reader)


@virtual_time
async def test_abandoning_cancels_without_waiting() -> None:
    script = ScriptedService([A, Wait(60)], hold_exit=True)
    reader = Reader(script, Call({}))
    attempt = await script.attempt()
    reader.abandon()
    reader.abandon()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert attempt.state == "leaving"
    attempt.may_end.set()
    await reader.aclose()


@virtual_time
async def test_a_generator_that_is_left_to_the_garbage_collector_ends_its_run() -> None:
    """It is closed by the loop's hook, in another task: no scope may break."""
    script = ScriptedService([A, Wait(60)])

    async def generate() -> AsyncIterator[Event]:
        async with read(script, Call({})) as reader:
            async for event in reader:
                yield event

    events = generate()
    assert await anext(events) == A
    del events
    gc.collect()
    await asyncio.sleep(1)
    assert script.attempts[0].state == "ended"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_work_that_waits_for_room_on_its_way_out_is_not_held_up_by_a_reader_that_has_left() -> None:
    async def tells_of_its_end(call: Call, sink: Sink) -> Result:
        try:
            sink.push(A)
            await asyncio.sleep(60)
        finally:
            for _ in range(3):
                if not sink.push(B):
                    await sink.room()
        raise AssertionError

    async with read(tells_of_its_end, Call({}), Buffer(size=1)) as reader:
        await asyncio.sleep(1)
    assert reader.statistics().discarded == 4


@virtual_time
async def test_a_failure_after_the_reader_has_left_is_nobodys() -> None:
    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    async def fails(call: Call, sink: Sink) -> Result:
        try:
            await asyncio.sleep(60)
        finally:
            raise LMFailed("on the way out")

    async with read(fails, Call({})) as reader:
        await asyncio.sleep(1)
    abandoned = Reader(fails, Call({}))
    await asyncio.sleep(1)
    abandoned.abandon()
    await asyncio.sleep(1)
    del reader, abandoned
    gc.collect()
    assert reports == []
