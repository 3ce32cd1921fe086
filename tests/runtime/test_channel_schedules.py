"""Every order of send, receive, close and cancel, up to a stated number of delays: nothing is lost, nobody hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import pytest

from dspy_live.core.call import Buffer, Overflow
from dspy_live.core.errors import Broken, Closed
from dspy_live.core.events import Event, Predicted, Token
from dspy_live.runtime.channel.channel import Channel
from dspy_live.testing import Deadlock, explore

DELAYS = 12
"""How many times a callback may be put off for another. At this bound each scenario has thousands of orders."""


def token(n: int) -> Token:
    return Token(str(n), "answer", "p", 1)


async def send(channel: Channel, count: int) -> None:
    for n in range(count):
        if not channel.push(token(n)):
            await channel.room()
        if n == 1:
            await asyncio.sleep(0)
    channel.push(Predicted({}))
    channel.close()


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
        channel = Channel(Buffer(size=1, overflow=overflow, max_bytes=2))
        got: list[Event] = []

        async def receive() -> None:
            if way == "many":
                while batch := await channel.receiver.receive_many():
                    got.extend(batch)
            else:
                async for event in channel.receiver:
                    got.append(event)

        async def cancel() -> None:
            await asyncio.sleep(0)
            reading.cancel()

        sending = asyncio.create_task(send(channel, 3))
        reading = asyncio.create_task(receive())
        cancelling = asyncio.create_task(cancel())
        await asyncio.wait([reading, cancelling])
        if reading.cancelled():
            await receive()
        await sending
        statistics = channel.statistics()
        assert got[-1] == Predicted({})
        assert statistics.waiting == statistics.discarded == 0
        assert statistics.sent == 4
        if overflow == "drop_oldest":
            assert "012".endswith(text(got))
            assert len(text(got)) + statistics.dropped == 3
        else:
            assert text(got) == "012"
        if overflow == "block":
            assert statistics.high_water <= 2  # the bound, and the result, which is never held back

    check(scenario)


def test_two_senders_that_wait_for_room() -> None:
    async def scenario() -> None:
        channel = Channel(Buffer(size=2))

        async def one(name: int) -> None:
            for n in range(2):
                if not channel.push(Token(str(n), "answer", "p", name)):
                    await channel.room()

        async def all_of_them() -> None:
            await asyncio.gather(one(1), one(2))
            channel.close()

        sending = asyncio.create_task(all_of_them())
        got = [event async for event in channel.receiver]
        await sending
        for name in (1, 2):
            assert text([event for event in got if event.lm_call == name]) == "01"

    check(scenario)


def test_the_reader_leaves_at_any_moment() -> None:
    async def scenario() -> None:
        channel = Channel(Buffer(size=1))
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def receive() -> None:
            await channel.receiver.receive_many()
            await channel.receiver.receive_many()

        async def leave() -> None:
            channel.receiver.close()

        async def wait_for_room() -> None:
            await asyncio.sleep(0)
            channel.on_room(lambda: called.set_result(None))  # a second call would fail
            await called

        sending = asyncio.create_task(send(channel, 3))
        others = [asyncio.create_task(coro) for coro in (receive(), wait_for_room(), leave())]
        await asyncio.wait([sending, *others])
        for task in (sending, others[0]):
            if (exc := task.exception()) is not None:
                assert isinstance(exc, (Broken, Closed))
        statistics = channel.statistics()
        assert statistics.sent == statistics.received + statistics.discarded

    check(scenario, delays=5)  # with 12 they are 464,396, and all hold


def test_the_sender_fails_at_any_moment() -> None:
    async def scenario() -> None:
        channel = Channel(Buffer(size=1))
        got: list[Event] = []

        async def fail() -> None:
            channel.close(ValueError("boom"))

        async def receive() -> None:
            async for event in channel.receiver:
                got.append(event)

        tasks = [asyncio.create_task(coro) for coro in (send(channel, 2), receive(), fail())]
        await asyncio.wait(tasks)
        statistics = channel.statistics()
        assert statistics.received == len(got)
        assert statistics.waiting == 0
        # What was pushed before the failure has arrived; what came after it was refused, not lost.
        assert statistics.sent == len(got) + statistics.discarded
        assert "01".startswith(text(got))
        refused = tasks[0].exception()
        assert refused is None or isinstance(refused, Closed)
        failure = tasks[1].exception()
        assert (failure is None and got[-1] == Predicted({})) or isinstance(failure, ValueError)

    check(scenario)


def test_a_thread_and_the_loop_send_at_once() -> None:
    async def scenario() -> None:
        channel = Channel(Buffer(size=1))

        async def foreign() -> None:
            for n in range(3):
                channel.push_threadsafe(Token(str(n), "why", "p", 2))

        async def both() -> None:
            await asyncio.gather(send_all(), foreign())
            channel.close()

        async def send_all() -> None:
            for n in range(2):
                if not channel.push(token(n)):
                    await channel.room()

        sending = asyncio.create_task(both())
        got = [event async for event in channel.receiver]
        await sending
        assert text([event for event in got if event.lm_call == 1]) == "01"
        assert text([event for event in got if event.lm_call == 2]) == "012"

    check(scenario)


def test_the_adaptive_bound_never_strands_a_sender() -> None:
    async def scenario() -> None:
        channel = Channel(Buffer(size=1, max_size=4))

        async def slow() -> list[Event]:
            got = []
            async for event in channel.receiver:
                got.append(event)
                if len(got) % 2:
                    await asyncio.sleep(1)
            return got

        sending = asyncio.create_task(send(channel, 6))
        got = await slow()
        await sending
        assert text(got) == "012345"

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
