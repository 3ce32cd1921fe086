"""The rules of every Channel, as tests that any channel can be put through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from dspy_live.core.call import Buffer, Overflow
from dspy_live.core.events import Event, Restart, Status, Token
from dspy_live.core.sink import Sink

PATIENCE = 30.0
"""Seconds after which something that a channel must let go at once is held up; a busy machine needs some of them."""


class ReadableSink(Sink, Protocol):
    """A sink with a reader, as :class:`~dspy_live.runtime.channel.channel.Channel` is."""

    async def receive(self) -> Event | None: ...
    async def receive_many(self) -> list[Event]: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...


class ChannelConformance:
    """Subclass it in a test module as ``class TestMine(ChannelConformance)`` and give it a channel."""

    def make_channel(self, buffer: Buffer, over: Callable[[], bool]) -> ReadableSink:
        """Return a fresh channel. ``over`` tells whether more can come. Called on the running loop."""
        raise NotImplementedError

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run one test; override it for a loop of your own."""
        asyncio.run(main)

    def test_events_arrive_once_and_in_order(self) -> None:
        self.run(self._in_order())

    def test_nothing_is_lost_when_the_source_does_not_pause(self) -> None:
        self.run(self._overrun())

    def test_the_bound_holds_for_a_source_that_waits_for_room(self) -> None:
        self.run(self._bound())

    def test_room_is_a_level_and_any_number_may_wait(self) -> None:
        self.run(self._level())

    def test_the_end_wakes_a_waiting_reader_and_stays(self) -> None:
        self.run(self._end())

    def test_an_event_arrives_or_the_channel_is_unchanged(self) -> None:
        self.run(self._cancelled_receive())

    def test_a_reader_that_has_left_holds_nobody_up(self) -> None:
        self.run(self._reader_gone())

    def test_merging_and_dropping_keep_what_must_be_kept(self) -> None:
        self.run(self._overflow())

    def _make(self, buffer: Buffer) -> tuple[ReadableSink, Callable[[], None]]:
        """Return a channel and a function that ends it."""
        over = False

        def end() -> None:
            nonlocal over
            over = True
            channel.wake()

        channel = self.make_channel(buffer, lambda: over)
        return channel, end

    async def _in_order(self) -> None:
        channel, end = self._make(Buffer(size=8))
        sent: list[Event] = []
        got: list[Event] = []

        async def send() -> None:
            for n in range(100):
                event: Event = _token(str(n)) if n % 5 else Status(str(n))
                sent.append(event)
                if not channel.push(event):
                    await channel.room()
            end()

        sending = asyncio.create_task(send())
        while (event := await channel.receive()) is not None:
            got.append(event)
            got.extend(await channel.receive_many())
        await sending
        assert got == sent

    async def _overrun(self) -> None:
        channel, end = self._make(Buffer(size=2))
        room = [channel.push(_token(str(n))) for n in range(20)]
        end()
        assert room[0], "there is room for the first of two"
        assert not any(room[1:]), "from the second on it is full"
        assert len(await channel.receive_many()) == 20
        assert await channel.receive_many() == []

    async def _bound(self) -> None:
        channel, end = self._make(Buffer(size=3))
        ahead = 0

        async def send() -> None:
            nonlocal ahead
            for n in range(30):
                ahead += 1
                if not channel.push(_token(str(n))):
                    await channel.room()
            end()

        sending = asyncio.create_task(send())
        while await channel.receive() is not None:
            await asyncio.sleep(0)
            assert ahead <= 4, "no more than the bound may wait"
            ahead -= 1
        await sending

    async def _level(self) -> None:
        channel, _ = self._make(Buffer(size=1))
        await asyncio.wait_for(channel.room(), PATIENCE)
        assert not channel.push(_token("a"))
        waiting = [asyncio.create_task(channel.room()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting[1:]), "there is no room yet"
        await channel.receive_many()
        await asyncio.wait_for(asyncio.gather(*waiting[1:], channel.room()), PATIENCE)

    async def _end(self) -> None:
        for last in ([], [_token("b")]):
            channel, end = self._make(Buffer())
            reading = asyncio.create_task(channel.receive_many())
            await asyncio.sleep(0)
            for event in last:
                channel.push(event)
            end()
            assert await asyncio.wait_for(reading, PATIENCE) == last, "events that were pushed come before the end"
            assert await channel.receive_many() == []
            assert await channel.receive() is None

    async def _cancelled_receive(self) -> None:
        for ticks in range(4):
            channel, _ = self._make(Buffer())
            reading = asyncio.ensure_future(channel.receive_many())
            await asyncio.sleep(0)
            channel.push(_token("a"))
            for _ in range(ticks):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            channel.push(_token("b"))
            first = [] if reading.cancelled() else reading.result()
            assert first + await channel.receive_many() == [_token("a"), _token("b")]

    async def _reader_gone(self) -> None:
        channel, _ = self._make(Buffer(size=1))
        channel.push(_token("a"))
        waiting = asyncio.ensure_future(channel.room())
        await asyncio.sleep(0)
        channel.close()
        await asyncio.wait_for(waiting, PATIENCE)
        for _ in range(3):
            assert channel.push(_token("b")), "nobody reads any more, so the work may end"
        assert await channel.receive_many() == []

    async def _overflow(self) -> None:
        restart = Restart("p", 1, "retry")
        events: list[Event] = [*(_token(c) for c in "abcdef"), Status("s"), restart, *(_token(c) for c in "ghijkl")]
        overflows: tuple[Overflow, ...] = ("coalesce", "drop_oldest")
        for overflow in overflows:
            channel, _ = self._make(Buffer(size=2, overflow=overflow))
            for event in events:
                assert channel.push(event), "it merges or drops, and is not full"
            got = await channel.receive_many()
            assert Status("s") in got
            assert got.count(restart) == 1
            cut = got.index(restart)
            void, text = _joined(got[:cut]), _joined(got[cut:])
            if overflow == "coalesce":
                assert (void, text) == ("abcdef", "ghijkl"), "nothing is lost, and nothing crosses a Restart"
            else:
                assert "ghijkl".endswith(text), "the newest tokens stay"
                assert len(text) == 2


def _token(text: str) -> Token:
    return Token(text, "answer", "p", 1)


def _joined(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))
