"""Every order of send, receive, close and cancel, up to a stated number of delays: nothing is lost, nobody hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import pytest

from dspy_live.core.call import Buffer, Call, Overflow
from dspy_live.core.events import Completion, Event, Result, Token
from dspy_live.core.sink import Sink
from dspy_live.runtime.channel import Channel, read
from dspy_live.testing import Deadlock, explore

DELAYS = 12
"""How many times a callback may be put off for another. At this bound each scenario has thousands of orders."""


def token(n: int) -> Token:
    return Token(str(n), "answer", "p", 1)


def make(buffer: Buffer) -> tuple[Channel, Callable[[], None]]:
    """Return a channel and a function that ends it."""
    over = False

    def end() -> None:
        nonlocal over
        over = True
        channel.wake()

    channel = Channel(buffer, lambda: over)
    return channel, end


async def send(channel: Channel, end: Callable[[], None], count: int) -> None:
    for n in range(count):
        if not channel.push(token(n)):
            await channel.room()
        if n == 1:
            await asyncio.sleep(0)
    end()


def check(scenario: Callable[[], Coroutine[Any, Any, None]], delays: int = DELAYS) -> None:
    count = explore(scenario, delays=delays)
    print(f"{count} schedules")
    assert count > 100


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


@pytest.mark.parametrize("overflow", ["block", "coalesce", "drop_oldest"])
@pytest.mark.parametrize("way", ["many", "one"])
def test_send_receive_cancel(overflow: Overflow, way: Literal["many", "one"]) -> None:
    async def scenario() -> None:
        channel, end = make(Buffer(size=1, overflow=overflow, max_bytes=2))
        got: list[Event] = []

        async def receive() -> None:
            if way == "many":
                while batch := await channel.receive_many():
                    got.extend(batch)
            else:
                while (event := await channel.receive()) is not None:
                    got.append(event)

        async def cancel() -> None:
            await asyncio.sleep(0)
            reading.cancel()

        sending = asyncio.create_task(send(channel, end, 3))
        reading = asyncio.create_task(receive())
        cancelling = asyncio.create_task(cancel())
        await asyncio.wait([reading, cancelling])
        if reading.cancelled():
            await receive()
        await sending
        statistics = channel.statistics()
        assert statistics.waiting == statistics.discarded == 0
        assert statistics.sent == 3
        if overflow == "drop_oldest":
            assert "012".endswith(text(got))
            assert len(text(got)) + statistics.dropped == 3
        else:
            assert text(got) == "012"
        if overflow == "block":
            assert statistics.high_water == 1

    check(scenario)


def test_two_sources_that_wait_for_room() -> None:
    async def scenario() -> None:
        channel, end = make(Buffer(size=2))

        async def one(name: int) -> None:
            for n in range(3):
                if not channel.push(Token(str(n), "answer", "p", name)):
                    await channel.room()

        async def all_of_them() -> None:
            await asyncio.gather(one(1), one(2))
            end()

        sending = asyncio.create_task(all_of_them())
        got: list[Event] = []
        while (event := await channel.receive()) is not None:
            got.append(event)
        await sending
        for name in (1, 2):
            assert text([event for event in got if isinstance(event, Token) and event.lm_call == name]) == "012"

    check(scenario)


def test_the_reader_leaves_at_any_moment() -> None:
    async def scenario() -> None:
        channel, end = make(Buffer(size=1))

        async def receive() -> None:
            await channel.receive_many()
            await channel.receive_many()

        async def leave() -> None:
            channel.close()

        async def wait_for_room() -> None:
            await asyncio.sleep(0)
            await channel.room()

        tasks = [asyncio.create_task(coro) for coro in (send(channel, end, 3), receive(), wait_for_room(), leave())]
        await asyncio.gather(*tasks)
        statistics = channel.statistics()
        assert statistics.sent == 3 == statistics.received + statistics.discarded

    check(scenario, delays=5)


def test_the_run_ends_at_any_moment() -> None:
    async def scenario() -> None:
        channel, end = make(Buffer(size=1))
        got: list[Event] = []

        async def receive() -> None:
            while (event := await channel.receive()) is not None:
                got.append(event)

        async def wake() -> None:
            channel.wake()

        await asyncio.gather(send(channel, end, 2), receive(), wake())
        assert text(got) == "01"
        assert channel.statistics().waiting == 0

    check(scenario)


def test_a_service_is_read_by_one_that_is_cancelled_at_any_moment() -> None:
    async def scenario() -> None:
        ended: list[int] = []

        async def service(call: Call, sink: Sink) -> Result:
            try:
                for n in range(3):
                    if not sink.push(token(n)):
                        await sink.room()
                return Completion({})
            finally:
                await asyncio.sleep(0)
                ended.append(1)

        async def reads() -> str:
            async with read(service, Call({}), Buffer(size=1)) as reader:
                return text([event async for event in reader])

        async def cancel() -> bool:
            await asyncio.sleep(0)
            return reading.cancel()

        reading = asyncio.create_task(reads())
        cancelling = asyncio.create_task(cancel())
        await asyncio.wait([reading, cancelling])
        if cancelling.result():
            assert reading.cancelled()
        else:
            assert reading.result() == "012"
        assert len(asyncio.all_tasks()) == 1
        assert len(ended) <= 1  # none where it was cancelled before it began

    check(scenario, delays=6)


def test_the_adaptive_bound_never_strands_a_source() -> None:
    async def scenario() -> None:
        channel, end = make(Buffer(size=1, max_size=4))

        async def slow() -> list[Event]:
            got: list[Event] = []
            while (event := await channel.receive()) is not None:
                got.append(event)
                if len(got) % 2:
                    await asyncio.sleep(1)
            return got

        sending = asyncio.create_task(send(channel, end, 12))
        got = await slow()
        await sending
        assert text(got) == "01234567891011"

    check(scenario)


def test_the_explorer_finds_a_lost_wake_up() -> None:
    """A channel that looks before it waits, with a step in between, hangs under some order."""

    class Careless:
        def __init__(self) -> None:
            self.items: list[int] = []
            self.waiter: asyncio.Future[None] | None = None

        def push(self, item: int) -> None:
            self.items.append(item)
            if self.waiter is not None and not self.waiter.done():
                self.waiter.set_result(None)

        async def receive(self) -> int:
            if not self.items:
                await asyncio.sleep(0)
                self.waiter = asyncio.get_running_loop().create_future()
                await self.waiter
            return self.items.pop()

    async def scenario() -> None:
        channel = Careless()

        async def send_one() -> None:
            channel.push(1)

        reading = asyncio.create_task(channel.receive())
        sending = asyncio.create_task(send_one())
        await asyncio.gather(reading, sending)

    with pytest.raises(Deadlock):
        explore(scenario, delays=2)


def test_the_explorer_counts_all_orders() -> None:
    async def scenario() -> None:
        order: list[int] = []

        async def note(n: int) -> None:
            order.append(n)

        tasks = [asyncio.create_task(note(n)) for n in range(3)]
        await asyncio.gather(*tasks)
        seen.add(tuple(order))

    seen: set[tuple[int, ...]] = set()
    explore(scenario, delays=0)
    assert len(seen) == 1
    explore(scenario, delays=4)
    assert len(seen) == 6
