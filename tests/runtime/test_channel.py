"""The channel of a caller that reads: order, bounds, room, the end, cancellation."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Buffer
from dspy_live.core.events import Event, Partial, Reasoning, Restart, Status, TextDelta, Token
from dspy_live.runtime.channel import Channel


def token(text: str, field: str = "answer", lm_call: int = 1, last: bool = False) -> Token:
    return Token(text, field, "p", lm_call, last)


def texts(events: list[Event]) -> list[str]:
    return [e.text for e in events if isinstance(e, Token)]


class Ended:
    """Whether more can come, as the channel asks it."""

    def __init__(self) -> None:
        self.now = False

    def __call__(self) -> bool:
        return self.now

    def end(self, channel: Channel) -> None:
        self.now = True
        channel.wake()


async def test_items_arrive_in_order_and_the_end_is_an_empty_list() -> None:
    channel = Channel(over=lambda: True)
    for i in range(3):
        assert channel.push(token(str(i)))
    assert texts(await channel.receive_many()) == ["0", "1", "2"]
    assert await channel.receive_many() == []
    assert await channel.receive_many() == []
    assert await channel.receive() is None


async def test_the_end_wakes_a_reader_that_waits() -> None:
    over = Ended()
    channel = Channel(over=over)
    reading = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    channel.wake()  # nothing has come, and more can come
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not reading.done()
    over.end(channel)
    assert await reading is None


async def test_push_says_when_it_is_full_and_loses_nothing() -> None:
    channel = Channel(Buffer(size=4))
    answers = [channel.push(token(str(i))) for i in range(6)]
    assert answers == [True, True, True, False, False, False]
    assert channel.full
    assert channel.statistics().waiting == 6
    assert len(await channel.receive_many()) == 6
    assert not channel.full
    assert channel.statistics().high_water == 6
    assert channel.statistics().times_full == 1


async def test_room_comes_at_half_of_the_bound() -> None:
    channel = Channel(Buffer(size=4))
    for i in range(4):
        channel.push(token(str(i)))
    waiting = asyncio.create_task(channel.room())
    await channel.receive()
    await asyncio.sleep(0)
    assert not waiting.done()
    await channel.receive()
    await waiting


async def test_room_returns_at_once_when_there_is_room() -> None:
    channel = Channel()
    for coro in (channel.room(), channel.room()):
        with pytest.raises(StopIteration):
            coro.send(None)


async def test_a_full_channel_takes_statuses() -> None:
    channel = Channel(Buffer(size=1))
    assert not channel.push(token("a"))
    channel.push(Status("working"))
    channel.push(Restart("p", 1, "retry"))
    assert len(await channel.receive_many()) == 3


async def test_statuses_alone_do_not_fill_it_until_there_are_very_many() -> None:
    channel = Channel(Buffer(size=1))
    assert all(channel.push(Status(str(i))) for i in range(1000))
    for i in range(24):
        room = channel.push(Status(str(i)))
    assert not room
    assert channel.full


async def test_the_source_waits_for_room() -> None:
    over = Ended()
    channel = Channel(Buffer(size=2), over)

    async def produce() -> None:
        for i in range(50):
            if not channel.push(token(str(i))):
                await channel.room()
        over.end(channel)

    task = asyncio.create_task(produce())
    got = []
    while (event := await channel.receive()) is not None:
        got.append(event)
    await task
    assert texts(got) == [str(i) for i in range(50)]
    assert channel.statistics().high_water == 2


async def test_leaving_lets_a_waiting_source_go_on() -> None:
    channel = Channel(Buffer(size=1))
    channel.push(token("a"))
    waiting = asyncio.create_task(channel.room())
    await asyncio.sleep(0)
    channel.close()
    channel.close()
    await waiting
    assert channel.push(token("b"))
    assert not channel.full
    statistics = channel.statistics()
    assert (statistics.sent, statistics.received, statistics.discarded, statistics.waiting) == (2, 0, 2, 0)
    assert await channel.receive_many() == []


async def test_leaving_ends_a_receive_that_waits() -> None:
    channel = Channel()
    reading = asyncio.create_task(channel.receive_many())
    await asyncio.sleep(0)
    channel.close()
    assert await reading == []


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_cancelled_receive_takes_nothing(cancel_first: bool) -> None:
    channel = Channel()
    reading = asyncio.create_task(channel.receive_many())
    await asyncio.sleep(0)
    if cancel_first:
        reading.cancel()
    channel.push(token("a"))
    if not cancel_first:
        reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert texts(await channel.receive_many()) == ["a"]


async def test_a_second_reader_is_refused() -> None:
    over = Ended()
    channel = Channel(over=over)
    reading = asyncio.create_task(channel.receive_many())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await channel.receive_many()
    over.end(channel)
    assert await reading == []


async def test_coalesce_merges_by_field_above_the_size_and_keeps_the_text() -> None:
    channel = Channel(Buffer(size=2, overflow="coalesce"))
    for i in range(4):
        assert channel.push(token(f"a{i}"))
        assert channel.push(token(f"b{i}", field="why"))
    channel.push(Reasoning("r", "p", 1))
    channel.push(Reasoning("s", "p", 1))
    channel.push(TextDelta("x", 1))
    channel.push(TextDelta("y", 1))
    got = await channel.receive_many()
    assert [(type(e).__name__, e.text) for e in got] == [  # type: ignore[union-attr]
        ("Token", "a0"),
        ("Token", "b0"),
        ("Token", "a1a2a3"),
        ("Token", "b1b2b3"),
        ("Reasoning", "rs"),
        ("TextDelta", "xy"),
    ]
    assert channel.statistics().coalesced == 6


async def test_coalesce_never_merges_across_a_restart() -> None:
    channel = Channel(Buffer(size=1, overflow="coalesce"))
    for text in "abc":
        channel.push(token(text))
    restart = Restart("p", 1, "retry")
    channel.push(restart)
    for text in "def":
        channel.push(token(text, last=text == "f"))
    got = await channel.receive_many()
    assert got == [token("a"), token("bc"), restart, token("def", last=True)]


async def test_coalesce_keeps_order_within_a_field_when_read_one_by_one() -> None:
    channel = Channel(Buffer(size=2, overflow="coalesce"), lambda: True)
    for text in "abcd":
        channel.push(token(text))
    got = [await channel.receive(), await channel.receive()]
    channel.push(token("e"))  # there is room again: not into the merged one, nor before it
    channel.push(token("f"))
    while (event := await channel.receive()) is not None:
        got.append(event)
    assert "".join(texts(got)) == "abcdef"


async def test_coalesce_blocks_at_its_bytes() -> None:
    channel = Channel(Buffer(size=1, overflow="coalesce", max_bytes=10))
    assert channel.push(token("abcd"))
    assert channel.push(token("é" * 2))
    assert not channel.push(token("xy"))
    assert channel.full
    await channel.receive_many()
    assert not channel.full


async def test_coalesce_keeps_the_newest_partial() -> None:
    channel = Channel(Buffer(size=1, overflow="coalesce"))
    channel.push(token("a"))
    for n in range(4):
        channel.push(Partial(list(range(n)), "items", "p", 1, final=n == 3))
    assert await channel.receive_many() == [token("a"), Partial([0, 1, 2], "items", "p", 1, True)]


async def test_drop_oldest_drops_tokens_only_and_counts_them() -> None:
    channel = Channel(Buffer(size=2, overflow="drop_oldest"))
    channel.push(Status("one"))
    for i in range(5):
        assert channel.push(token(str(i)))
    channel.push(token("", last=True))
    channel.push(Partial([1], "items", "p", 1, final=True))
    channel.push(Status("two"))
    got = await channel.receive_many()
    assert got == [
        Status("one"),
        token("3"),
        token("4"),
        token("", last=True),
        Partial([1], "items", "p", 1, final=True),
        Status("two"),
    ]
    assert channel.statistics().dropped == 3


async def test_an_adaptive_buffer_grows_for_a_quick_reader_and_shrinks_for_a_slow_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    channel = Channel(Buffer(size=2, max_size=16))
    bounds = []
    for wait in (0.001, 0.001, 0.001, 0.001, 0.1, 0.3, 0.3, 0.3, 0.3):
        while channel.push(token("x")):
            pass
        now += wait
        await channel.receive_many()
        bounds.append(channel.bound)
    assert bounds == [4, 8, 16, 16, 16, 8, 4, 2, 2]


async def test_a_buffer_that_shrinks_below_its_contents_stays_full_without_a_busy_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    channel = Channel(Buffer(size=2, max_size=8))
    for _ in range(2):
        while channel.push(token("x")):
            pass
        await channel.receive_many()
    while channel.push(token("x")):
        pass
    waiting = asyncio.create_task(channel.room())
    now += 1
    for _ in range(4):
        await channel.receive()
    await asyncio.sleep(0)
    assert channel.bound == 4
    assert channel.full
    assert not waiting.done()
    await channel.receive()
    await channel.receive()
    await waiting


async def test_statistics_add_up() -> None:
    channel = Channel(Buffer(size=3, overflow="drop_oldest"))
    for i in range(10):
        channel.push(token(str(i)))
    await channel.receive()
    s = channel.statistics()
    assert (s.size, s.bound, s.waiting, s.received, s.dropped, s.sent) == (3, 3, 2, 1, 7, 10)
