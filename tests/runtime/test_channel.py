# ruff: noqa: PT012
"""The call's channel: order, bounds, both ends closed, cancellation, threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dspy_live.core.call import Buffer
from dspy_live.core.errors import Broken, Closed
from dspy_live.core.events import Partial, Predicted, Reasoning, Restart, Status, TextDelta, Token
from dspy_live.core.service import Receiver
from dspy_live.runtime.channel.channel import Channel


def token(text: str, field: str = "answer", lm_call: int = 1, last: bool = False) -> Token:
    return Token(text, field, "p", lm_call, last)


def texts(events: list) -> list[str]:
    return [e.text for e in events]


async def test_the_receiver_is_a_receiver() -> None:
    assert isinstance(Channel().receiver, Receiver)


async def test_items_arrive_in_order_and_the_end_is_an_empty_list() -> None:
    channel = Channel()
    for i in range(3):
        assert channel.push(token(str(i)))
    channel.close()
    assert texts(await channel.receiver.receive_many()) == ["0", "1", "2"]
    assert await channel.receiver.receive_many() == []
    assert await channel.receiver.receive_many() == []


async def test_the_failure_comes_after_what_was_sent() -> None:
    channel = Channel()
    channel.push(token("a"))
    channel.close(ValueError("boom"))
    channel.close(KeyError("the first close counts"))
    seen = []
    with pytest.raises(ValueError, match="boom"):
        async for event in channel.receiver:
            seen.append(event)
    assert seen == [token("a")]
    with pytest.raises(ValueError, match="boom"):
        await channel.receiver.receive_many()


async def test_push_says_when_it_is_full_and_loses_nothing() -> None:
    channel = Channel(Buffer(size=4))
    answers = [channel.push(token(str(i))) for i in range(6)]
    assert answers == [True, True, True, False, False, False]
    assert channel.full
    assert channel.statistics().waiting == 6
    assert len(await channel.receiver.receive_many()) == 6
    assert not channel.full
    assert channel.statistics().high_water == 6


async def test_room_comes_at_half_of_the_bound_once() -> None:
    channel = Channel(Buffer(size=4))
    called = []
    for i in range(4):
        channel.push(token(str(i)))
    channel.on_room(lambda: called.append("room"))
    await anext(channel.receiver)
    await asyncio.sleep(0)
    assert called == []
    await anext(channel.receiver)
    await asyncio.sleep(0)
    assert called == ["room"]
    await channel.receiver.receive_many()
    await asyncio.sleep(0)
    assert called == ["room"]


async def test_on_room_is_called_soon_when_there_is_room_now() -> None:
    channel = Channel()
    called = []
    channel.on_room(lambda: called.append(1))
    assert called == []
    await asyncio.sleep(0)
    assert called == [1]


async def test_a_full_channel_takes_statuses_and_the_result() -> None:
    channel = Channel(Buffer(size=1))
    assert not channel.push(token("a"))
    channel.push(Status("working"))
    channel.push(Predicted({"answer": "a"}))
    channel.close()
    assert len(await channel.receiver.receive_many()) == 3


async def test_statuses_alone_do_not_fill_it_until_there_are_very_many() -> None:
    channel = Channel(Buffer(size=1))
    assert all(channel.push(Status(str(i))) for i in range(1000))
    for i in range(24):
        room = channel.push(Status(str(i)))
    assert not room
    assert channel.full


async def test_the_sender_waits_for_room() -> None:
    channel = Channel(Buffer(size=2))

    async def produce() -> None:
        for i in range(50):
            if not channel.push(token(str(i))):
                await channel.room()
        channel.close()

    task = asyncio.create_task(produce())
    got = []
    async for event in channel.receiver:
        got.append(event.text)
    await task
    assert got == [str(i) for i in range(50)]
    assert channel.statistics().high_water == 2


async def test_leaving_tells_a_waiting_sender() -> None:
    channel = Channel(Buffer(size=1))
    channel.push(token("a"))
    waiting = asyncio.create_task(channel.room())
    await asyncio.sleep(0)
    channel.receiver.close()
    with pytest.raises(Broken):
        await waiting
    assert channel.push(token("b")) is False
    assert channel.broken
    assert not channel.full
    statistics = channel.statistics()
    assert (statistics.sent, statistics.received, statistics.discarded, statistics.waiting) == (2, 0, 2, 0)
    with pytest.raises(Closed):
        await channel.receiver.receive_many()


async def test_pushing_after_the_own_close_is_a_mistake() -> None:
    channel = Channel()
    channel.close()
    with pytest.raises(Closed):
        channel.push(token("a"))
    with pytest.raises(Closed):
        await channel.room()


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_cancelled_receive_takes_nothing(cancel_first: bool) -> None:
    channel = Channel()
    reading = asyncio.create_task(channel.receiver.receive_many())
    await asyncio.sleep(0)
    if cancel_first:
        reading.cancel()
    channel.push(token("a"))
    if not cancel_first:
        reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert texts(await channel.receiver.receive_many()) == ["a"]


async def test_a_second_reader_is_refused() -> None:
    channel = Channel()
    reading = asyncio.create_task(channel.receiver.receive_many())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await channel.receiver.receive_many()
    channel.close()
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
    got = await channel.receiver.receive_many()
    assert [(type(e).__name__, e.text) for e in got] == [
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
    got = await channel.receiver.receive_many()
    assert got == [token("a"), token("bc"), restart, token("def", last=True)]


async def test_coalesce_keeps_order_within_a_field_when_read_one_by_one() -> None:
    channel = Channel(Buffer(size=2, overflow="coalesce"))
    for text in "abcd":
        channel.push(token(text))
    got = [(await anext(channel.receiver)).text, (await anext(channel.receiver)).text]
    channel.push(token("e"))  # there is room again: not into the merged one, nor before it
    channel.push(token("f"))
    channel.close()
    got += [e.text async for e in channel.receiver]
    assert "".join(got) == "abcdef"


async def test_coalesce_blocks_at_its_bytes() -> None:
    channel = Channel(Buffer(size=1, overflow="coalesce", max_bytes=10))
    assert channel.push(token("abcd"))
    assert channel.push(token("é" * 2))
    assert not channel.push(token("xy"))
    assert channel.full
    await channel.receiver.receive_many()
    assert not channel.full


async def test_coalesce_keeps_the_newest_partial() -> None:
    channel = Channel(Buffer(size=1, overflow="coalesce"))
    channel.push(token("a"))
    for n in range(4):
        channel.push(Partial(list(range(n)), "items", "p", 1, final=n == 3))
    assert await channel.receiver.receive_many() == [token("a"), Partial([0, 1, 2], "items", "p", 1, True)]


async def test_drop_oldest_drops_tokens_only_and_counts_them() -> None:
    channel = Channel(Buffer(size=2, overflow="drop_oldest"))
    channel.push(Status("one"))
    for i in range(5):
        assert channel.push(token(str(i)))
    channel.push(token("", last=True))
    channel.push(Partial([1], "items", "p", 1, final=True))
    channel.push(Status("two"))
    channel.push(Predicted({}))
    got = await channel.receiver.receive_many()
    assert got == [
        Status("one"),
        token("3"),
        token("4"),
        token("", last=True),
        Partial([1], "items", "p", 1, final=True),
        Status("two"),
        Predicted({}),
    ]
    assert channel.statistics().dropped == 3


async def test_a_thread_never_waits_and_its_tokens_merge() -> None:
    channel = Channel(Buffer(size=4))

    def produce() -> None:
        for i in range(1000):
            channel.push(token(f"{i},"))
        channel.push(Status("done"))
        channel.close()

    thread = threading.Thread(target=produce)
    thread.start()
    thread.join()  # the loop stands still meanwhile: the thread waited for nothing
    got = [event async for event in channel.receiver]
    assert "".join(e.text for e in got if isinstance(e, Token)) == "".join(f"{i}," for i in range(1000))
    assert got[-1] == Status("done")
    assert len(got) == 6
    assert channel.statistics().coalesced == 995


async def test_one_wake_up_for_a_batch_from_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel()
    loop = asyncio.get_running_loop()
    woken = []
    original = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a, **k: (woken.append(a), original(*a, **k))[1])
    thread = threading.Thread(target=lambda: [channel.push(token("x")) for _ in range(100)])
    thread.start()
    thread.join()
    assert len(await channel.receiver.receive_many()) > 0
    assert len(woken) == 1


async def test_many_threads_lose_nothing() -> None:
    channel = Channel(Buffer(size=8))
    per_thread = 2000

    def produce(number: int) -> None:
        for i in range(per_thread):
            channel.push(token(f"{i} ", lm_call=number))

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    expected = "".join(f"{i} " for i in range(per_thread))
    seen = dict.fromkeys(range(4), "")
    while any(text != expected for text in seen.values()):
        for event in await asyncio.wait_for(channel.receiver.receive_many(), 10):
            seen[event.lm_call] += event.text
    for thread in threads:
        thread.join()


async def test_a_thread_that_comes_late_harms_nothing() -> None:
    channel = Channel()
    channel.push(token("a"))
    channel.close()
    thread = threading.Thread(target=channel.push, args=(token("late"),))
    thread.start()
    thread.join()
    assert [e.text async for e in channel.receiver] == ["a"]
    await asyncio.sleep(0)
    assert channel.statistics().discarded == 1


def test_a_thread_after_the_end_of_the_loop_harms_nothing() -> None:
    async def main() -> Channel:
        return Channel()

    channel = asyncio.run(main())
    thread = threading.Thread(target=channel.push, args=(token("late"),))
    thread.start()
    thread.join()
    assert channel.statistics().discarded == 1


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
        await channel.receiver.receive_many()
        bounds.append(channel.bound)
    assert bounds == [4, 8, 16, 16, 16, 8, 4, 2, 2]


async def test_a_buffer_that_shrinks_below_what_waits_stays_full_without_a_busy_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    channel = Channel(Buffer(size=2, max_size=8))
    for _ in range(2):
        while channel.push(token("x")):
            pass
        await channel.receiver.receive_many()
    while channel.push(token("x")):
        pass
    called = []
    channel.on_room(lambda: called.append(1))
    now += 1
    for _ in range(4):
        await anext(channel.receiver)
    await asyncio.sleep(0)
    assert channel.bound == 4
    assert channel.full
    assert called == []
    await anext(channel.receiver)
    await anext(channel.receiver)
    await asyncio.sleep(0)
    assert called == [1]


async def test_statistics_add_up() -> None:
    channel = Channel(Buffer(size=3, overflow="drop_oldest"))
    for i in range(10):
        channel.push(token(str(i)))
    await anext(channel.receiver)
    s = channel.statistics()
    assert (s.size, s.bound, s.waiting, s.received, s.dropped, s.sent) == (3, 3, 2, 1, 7, 10)
