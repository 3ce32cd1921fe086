"""Bounded concurrency over inputs without end: so many at work, so many results waiting to be taken, no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

from dspy_live.core.errors import Cancelled
from dspy_live.runtime.scope import ended

T = TypeVar("T")
R = TypeVar("R")

Items = Iterable[T] | AsyncIterable[T]


async def bounded_map(
    work: Callable[[int, T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int,
    ordered: bool = False,
    ahead: int | None = None,
) -> AsyncGenerator[R]:
    """Await ``work(index, item)`` for each item, at most ``concurrency`` at once, and yield the results.

    Memory is bounded: an item is taken from its source only while fewer than ``concurrency + ahead`` are between the
    source and the reader. In order, one slow item holds up the others once that many are there.

    Args:
        work: must return its failure as a value; one that raises ends the whole, with that failure.
        items: an iterable, or an async one; it may be endless. An iterator that blocks blocks the loop.
        concurrency: at least 1.
        ordered: yield in the order of the items.
        ahead: how many finished results may wait, for the reader or for a slower one before them; by default
            ``concurrency``, and 4 times as many when ordered.

    Closing the iterator, or cancelling its reader, cancels what is at work and waits for its end.
    """
    if ahead is None:
        ahead = concurrency * (4 if ordered else 1)
    room = asyncio.Semaphore(concurrency + ahead)
    results: asyncio.Queue[tuple[int, R] | None] = asyncio.Queue()
    all_work = asyncio.ensure_future(_work_on_all(work, items, concurrency, room, results))
    finished: dict[int, R] = {}
    due = 0
    try:
        while (taken := await results.get()) is not None:
            index, result = taken
            if not ordered:
                room.release()
                yield result
                continue
            finished[index] = result
            while due in finished:
                room.release()
                yield finished.pop(due)
                due += 1
    finally:
        all_work.cancel()
        await ended(all_work)
        if not all_work.cancelled():
            all_work.result()


async def _work_on_all(
    work: Callable[[int, T], Awaitable[R]],
    items: Items[T],
    concurrency: int,
    room: asyncio.Semaphore,
    results: asyncio.Queue[tuple[int, R] | None],
) -> None:
    one_at_a_time = asyncio.Lock()

    async def worker() -> None:
        while True:
            await room.acquire()
            async with one_at_a_time:
                numbered = await anext(source, None)
            if numbered is None:
                return
            results.put_nowait((numbered[0], await _not_cancelled(work(*numbered))))

    try:
        async with aclosing(_numbered(items)) as source, asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__
    finally:
        results.put_nowait(None)


async def _not_cancelled(work: Awaitable[R]) -> R:
    try:
        return await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # A task group takes a worker that ends in this way for one that is done, and its items for worked on.
        raise Cancelled("the work on an item was cancelled") from None


async def _numbered(items: Items[T]) -> AsyncGenerator[tuple[int, T]]:
    index = 0
    if not isinstance(items, AsyncIterable):
        for item in items:
            yield index, item
            index += 1
        return
    iterator: AsyncIterator[T] = aiter(items)
    try:
        async for item in iterator:
            yield index, item
            index += 1
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
