# ruff: noqa: PT012
"""First token and silence; the reader's own slowness does not count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, FirstTokenTimeout, IdleTimeout
from dspy_live.core.events import Completion, Predicted, Started, Status, TextDelta
from dspy_live.layers.timeouts import Timeouts
from dspy_live.testing.scripted import ScriptedService, Wait, collect
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
    assert (layer.statistics().first_token, layer.statistics().idle) == (0, 0)


@virtual_time
async def test_a_status_is_no_first_token() -> None:
    script = ScriptedService([Started("r"), Wait(1), Status("thinking"), Wait(1.5), TextDelta("a")])
    layer = Timeouts(first_token=2)
    with pytest.raises(FirstTokenTimeout, match="within 2 s"):
        await collect(layer(script), Call({}))
    assert now() == pytest.approx(2)
    assert script.openings[0].state == "ended"
    assert layer.statistics().first_token == 1


@virtual_time
async def test_the_opening_counts_for_the_first_token() -> None:
    @asynccontextmanager
    async def slow(call: Call) -> AsyncIterator:
        await asyncio.sleep(1.5)
        async with ScriptedService([Wait(1), TextDelta("a"), Completion({})]).open(call) as events:
            yield events

    class Slow:
        open = staticmethod(slow)

    with pytest.raises(FirstTokenTimeout):
        await collect(Timeouts(first_token=2)(Slow()), Call({}))
    assert now() == pytest.approx(2)
    with pytest.raises(FirstTokenTimeout):
        await collect(Timeouts(first_token=1)(Slow()), Call({}))
    assert now() == pytest.approx(3)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time
async def test_silence_after_the_first_token() -> None:
    script = ScriptedService([Wait(5), TextDelta("a"), Wait(0.5), TextDelta("b"), Wait(1.5), TextDelta("c")])
    layer = Timeouts(idle=1)
    events = []
    with pytest.raises(IdleTimeout, match="longer than 1 s"):
        async with layer(script).open(Call({})) as receiver:
            async for event in receiver:
                events.append(event)
    assert events == [TextDelta("a"), TextDelta("b")]
    assert now() == pytest.approx(6.5)
    assert layer.statistics().idle == 1


@virtual_time
async def test_a_slow_reader_is_not_the_services_fault() -> None:
    script = ScriptedService([TextDelta("a"), TextDelta("b"), Wait(20), TextDelta("c"), Completion({})])
    async with Timeouts(first_token=1, idle=1)(script).open(Call({})) as receiver:
        assert len(await receiver.receive_many()) >= 1
        await asyncio.sleep(30)
        seen = [event async for event in receiver]
    assert seen[-1] == Completion({})


@virtual_time
async def test_the_receive_itself_raises_so_that_a_retry_outside_can_see_it() -> None:
    script = ScriptedService([Wait(10)])
    async with Timeouts(first_token=1)(script).open(Call({})) as receiver:
        with pytest.raises(FirstTokenTimeout):
            await receiver.receive_many()
        with pytest.raises(FirstTokenTimeout):
            await receiver.receive_many()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(5)


@virtual_time
async def test_a_reader_that_is_cancelled_takes_nothing_and_may_read_on() -> None:
    script = ScriptedService([Wait(2), TextDelta("a"), Completion({})])
    async with Timeouts(first_token=5)(script).open(Call({})) as receiver:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receiver.receive_many(), 1)
        assert [event async for event in receiver] == [TextDelta("a"), Completion({})]


@virtual_time
async def test_a_service_that_swallows_the_cancellation_leaves_no_trace_on_the_task() -> None:
    class Stubborn:
        @asynccontextmanager
        async def open(self, call: Call) -> AsyncIterator:
            yield self

        async def receive_many(self) -> list:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                return [Completion({})]
            return []

    async with Timeouts(first_token=1)(Stubborn()).open(Call({})) as receiver:
        assert await receiver.receive_many() == [Completion({})]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@virtual_time
async def test_a_cancellation_from_outside_stays_one() -> None:
    script = ScriptedService()
    task = asyncio.create_task(collect(Timeouts(first_token=5)(script), Call({})))
    await script.opening()
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert task.cancelling() == 1
