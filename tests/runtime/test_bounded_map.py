"""Bounded concurrency: how much is at work, what waits, and that leaving ends all of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from dspy_live.core.errors import Cancelled
from dspy_live.runtime.bounded_map import bounded_map


class Work:
    """Work on one item that a test ends by hand, in any order."""

    def __init__(self) -> None:
        self.running: dict[int, asyncio.Future[str]] = {}
        self.cancelled: list[int] = []

    async def __call__(self, index: int, item: str) -> str:
        self.running[index] = asyncio.get_running_loop().create_future()
        try:
            return f"{item}{await self.running[index]}"
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # its end takes a while
            self.cancelled.append(index)
            raise
        finally:
            del self.running[index]

    def end(self, *indices: int) -> None:
        for index in indices:
            self.running[index].set_result("!")


async def settled() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def counted() -> tuple[Iterator[str], list[int]]:
    taken: list[int] = []

    def items() -> Iterator[str]:
        for n in itertools.count():
            taken.append(n)
            yield str(n)

    return items(), taken


async def test_as_completed_a_slow_item_holds_up_nobody() -> None:
    work = Work()
    async with aclosing(bounded_map(work, "abc", concurrency=3)) as results:
        first = asyncio.ensure_future(anext(results))
        await settled()
        work.end(2, 1)
        assert [await first, await anext(results)] == ["c!", "b!"]
        work.end(0)
        assert [result async for result in results] == ["a!"]


async def test_in_order_results_wait_for_the_slowest() -> None:
    work = Work()
    async with aclosing(bounded_map(work, "abc", concurrency=3, ordered=True)) as results:
        first = asyncio.ensure_future(anext(results))
        await settled()
        work.end(2, 1)
        await settled()
        assert not first.done()
        work.end(0)
        assert [await first, *[result async for result in results]] == ["a!", "b!", "c!"]


async def test_as_completed_a_slow_reader_stops_the_taking_of_items() -> None:
    items, taken = counted()

    async def at_once(index: int, item: str) -> int:
        return index

    async with aclosing(bounded_map(at_once, items, concurrency=2)) as results:
        assert await anext(results) == 0
        await settled()
        assert len(taken) <= 1 + 2 + 2, "one was read, two results wait, two workers hold one each"
        assert await anext(results) == 1


async def test_in_order_one_slow_item_bounds_the_items_taken() -> None:
    items, taken = counted()
    never = asyncio.get_running_loop().create_future()

    async def first_never_ends(index: int, item: str) -> int:
        if index == 0:
            await never
        return index

    async with aclosing(bounded_map(first_never_ends, items, concurrency=2, ordered=True, ahead=3)) as results:
        reading = asyncio.ensure_future(anext(results))
        await settled()
        assert len(taken) == 2 + 3
        never.set_result(None)
        assert await reading == 0


@pytest.mark.parametrize("ordered", [False, True])
async def test_leaving_early_cancels_the_work_waits_for_its_end_and_closes_the_source(ordered: bool) -> None:
    work, closed = Work(), []

    async def items() -> AsyncIterator[str]:
        try:
            for n in itertools.count():
                yield str(n)
        finally:
            closed.append(True)

    results = bounded_map(work, items(), concurrency=3, ordered=ordered)
    first = asyncio.ensure_future(anext(results))
    await settled()
    work.end(0)
    assert await first == "0!"
    await results.aclose()
    assert sorted(work.cancelled)[:2] == [1, 2]
    assert work.running == {}
    assert closed == [True]


async def test_a_cancelled_reader_waits_for_the_end_of_the_work_too() -> None:
    work = Work()
    reading = asyncio.ensure_future(anext(bounded_map(work, "abc", concurrency=2)))
    await settled()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (work.running, sorted(work.cancelled)) == ({}, [0, 1])


@pytest.mark.parametrize("ordered", [False, True])
async def test_work_that_raises_ends_the_whole_with_its_failure(ordered: bool) -> None:
    others: list[int] = []

    async def second_fails(index: int, item: str) -> int:
        if index == 1:
            raise ValueError("no")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            others.append(index)
        return index

    with pytest.raises(ValueError, match="no"):
        async for _ in bounded_map(second_fails, "abcd", concurrency=3, ordered=ordered):
            pass
    assert sorted(others) == [0, 2]


async def test_a_source_that_raises_ends_the_whole_with_its_failure() -> None:
    def items() -> Iterator[str]:
        yield "a"
        raise OSError("the file is gone")

    async def at_once(index: int, item: str) -> str:
        return item

    with pytest.raises(OSError, match="gone"):
        async for _ in bounded_map(at_once, items(), concurrency=1):
            pass


async def test_a_source_that_can_not_be_closed_is_a_failure() -> None:
    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
            await asyncio.get_running_loop().create_future()
        finally:
            raise OSError("can't be closed")

    async def at_once(index: int, item: str) -> str:
        return item

    results = bounded_map(at_once, items(), concurrency=1)
    assert await anext(results) == "a"
    with pytest.raises(OSError, match="closed"):
        await results.aclose()


async def test_work_that_cancels_itself_is_a_failure_and_no_end_of_the_items() -> None:
    async def cancels(index: int, item: str) -> str:
        raise asyncio.CancelledError

    with pytest.raises(Cancelled):
        async for _ in bounded_map(cancels, "abc", concurrency=2):
            pass


async def test_no_items_are_no_results() -> None:
    assert [result async for result in bounded_map(Work(), "", concurrency=4, ordered=True)] == []
