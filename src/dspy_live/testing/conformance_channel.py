"""What every Channel must keep, as tests that any channel can be put through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from dspy_live.core.call import Buffer, Overflow
from dspy_live.core.errors import Broken, Closed
from dspy_live.core.events import Event, Restart, Status, Token
from dspy_live.core.service import Receiver


class ClosableReceiver(Receiver[Event], Protocol):
    """A receiver whose own side can close it."""

    def close(self) -> None: ...


class Sender(Protocol):
    """The sending end of a channel, as :class:`~dspy_live.runtime.channel.channel.Channel` has it."""

    @property
    def receiver(self) -> ClosableReceiver: ...
    @property
    def full(self) -> bool: ...
    def push(self, event: Event) -> bool: ...
    def on_room(self, callback: Callable[[], object]) -> None: ...
    async def room(self) -> None: ...
    def close(self, exc: BaseException | None = None) -> None: ...


class ChannelConformance:
    """Subclass it in a test module as ``class TestMine(ChannelConformance)`` and give it a channel."""

    def make_channel(self, buffer: Buffer) -> Sender:
        """Return a fresh channel. Called on the running loop."""
        raise NotImplementedError

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run one test; override it for a loop of your own."""
        asyncio.run(main)

    def test_what_is_sent_arrives_once_and_in_order(self) -> None:
        self.run(self._in_order())

    def test_nothing_is_lost_when_the_sender_does_not_stop(self) -> None:
        self.run(self._overrun())

    def test_the_bound_holds_for_a_sender_that_waits(self) -> None:
        self.run(self._bound())

    def test_the_failure_comes_last_and_stays(self) -> None:
        self.run(self._failure())

    def test_an_event_arrives_or_the_channel_is_unchanged(self) -> None:
        self.run(self._cancelled_receive())

    def test_a_sender_that_waits_hears_that_the_reader_has_gone(self) -> None:
        self.run(self._reader_gone())

    def test_sending_after_the_own_end_is_refused(self) -> None:
        self.run(self._closed())

    def test_merging_and_dropping_keep_what_must_be_kept(self) -> None:
        self.run(self._overflow())

    async def _in_order(self) -> None:
        channel = self.make_channel(Buffer(size=8))
        sent: list[Event] = []
        got: list[Event] = []

        async def send() -> None:
            for n in range(100):
                event: Event = _token(str(n)) if n % 5 else Status(str(n))
                sent.append(event)
                if not channel.push(event):
                    await channel.room()
            channel.close()

        sending = asyncio.create_task(send())
        while True:
            try:
                got.append(await channel.receiver.__anext__())
            except StopAsyncIteration:
                break
            got.extend(await channel.receiver.receive_many())
        await sending
        assert got == sent

    async def _overrun(self) -> None:
        channel = self.make_channel(Buffer(size=2))
        room = [channel.push(_token(str(n))) for n in range(20)]
        channel.close()
        assert room[0], "there is room for the first of two"
        assert not any(room[1:]), "from the second on it is full"
        assert len(await channel.receiver.receive_many()) == 20
        assert await channel.receiver.receive_many() == []

    async def _bound(self) -> None:
        channel = self.make_channel(Buffer(size=3))
        ahead = 0

        async def send() -> None:
            nonlocal ahead
            for n in range(30):
                ahead += 1
                if not channel.push(_token(str(n))):
                    await channel.room()
            channel.close()

        sending = asyncio.create_task(send())
        async for _ in channel.receiver:
            await asyncio.sleep(0)
            assert ahead <= 4, "no more than the bound may wait"
            ahead -= 1
        await sending

    async def _failure(self) -> None:
        channel = self.make_channel(Buffer())
        channel.push(_token("a"))
        channel.close(ValueError("boom"))
        assert await channel.receiver.receive_many() == [_token("a")]
        for _ in range(2):
            await _raises(ValueError, channel.receiver.receive_many())

    async def _cancelled_receive(self) -> None:
        for ticks in range(4):
            channel = self.make_channel(Buffer())
            reading = asyncio.ensure_future(channel.receiver.receive_many())
            await asyncio.sleep(0)
            channel.push(_token("a"))
            for _ in range(ticks):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            channel.push(_token("b"))
            first = [] if reading.cancelled() else reading.result()
            assert first + await channel.receiver.receive_many() == [_token("a"), _token("b")]

    async def _reader_gone(self) -> None:
        channel = self.make_channel(Buffer(size=1))
        channel.push(_token("a"))
        called: list[int] = []
        channel.on_room(lambda: called.append(1))
        waiting = asyncio.ensure_future(channel.room())
        await asyncio.sleep(0)
        channel.receiver.close()
        await _raises(Broken, waiting)
        assert called == [1]
        assert channel.push(_token("b")) is False
        await _raises(Closed, channel.receiver.receive_many())

    async def _closed(self) -> None:
        channel = self.make_channel(Buffer())
        channel.close()
        try:
            channel.push(_token("a"))
        except Closed:
            return
        raise AssertionError("pushing into a closed channel must raise Closed")

    async def _overflow(self) -> None:
        restart = Restart("p", 1, "retry")
        events: list[Event] = [*(_token(c) for c in "abcdef"), Status("s"), restart, *(_token(c) for c in "ghijkl")]
        overflows: tuple[Overflow, ...] = ("coalesce", "drop_oldest")
        for overflow in overflows:
            channel = self.make_channel(Buffer(size=2, overflow=overflow))
            for event in events:
                assert channel.push(event), "it merges or drops, and is not full"
            got = await channel.receiver.receive_many()
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


async def _raises(kind: type[BaseException], awaitable: Any) -> None:
    try:
        await awaitable
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected")
