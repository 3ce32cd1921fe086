"""Bounded concurrency over inputs without end: so many at work, so many waiting to be taken, no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Items = Iterable[T] | AsyncIterable[T]


class Window(Generic[T, R]):
    """Runs ``work(index, item)`` for each item, at most ``concurrency`` at once, and iterates over the results.

    Memory is bounded: items are taken from their source only when there is room. As completed, at most
    ``concurrency`` results wait for the reader; in order, at most ``concurrency + ahead`` items are
    between the source and the reader, so that one slow item holds the others up once the window is full.

    Args:
        items: an iterable, or an async one; it may be endless. An iterator that blocks blocks the loop.
        work: must return its failure as a value; one that raises ends the whole, with that failure.
        concurrency: at least 1.
        ordered: yield in the order of the items.
        ahead: how far finished results may run ahead of the slowest, when ordered.

    Closing the iterator, or cancelling its reader, cancels what is at work and waits for its end.
    """

    def __init__(
        self,
        items: Items[T],
        work: Callable[[int, T], Awaitable[R]],
        *,
        concurrency: int,
        ordered: bool = False,
        ahead: int | None = None,
    ) -> None:
        self._items = _aiter(items)
        self._work = work
        self._concurrency = concurrency
        self._ordered = ordered
        self._room = asyncio.Semaphore(concurrency + (4 * concurrency if ahead is None else ahead))
        self._results: asyncio.Queue[tuple[int, Any, BaseException | None]] = asyncio.Queue(
            0 if ordered else concurrency
        )
        self._next = 0
        self._exhausted = False
        self._pulling = asyncio.Lock()

    async def __aiter__(self) -> AsyncIterator[R]:
        workers = [asyncio.ensure_future(self._worker()) for _ in range(self._concurrency)]
        everyone = asyncio.ensure_future(self._when_all(workers))
        waiting: dict[int, R] = {}
        due = 0
        try:
            while True:
                index, result, failure = await self._results.get()
                if index < 0:
                    if failure is not None:
                        raise failure
                    break
                if failure is not None:
                    raise failure
                if not self._ordered:
                    yield result
                    continue
                waiting[index] = result
                while due in waiting:
                    self._room.release()
                    yield waiting.pop(due)
                    due += 1
        finally:
            everyone.cancel()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(everyone, *workers, return_exceptions=True)
            close = getattr(self._items, "aclose", None)
            if close is not None:
                await close()

    async def _when_all(self, workers: Sequence[asyncio.Future[None]]) -> None:
        try:
            await asyncio.gather(*workers)
        except Exception as exc:
            await self._results.put((-1, None, exc))
        else:
            await self._results.put((-1, None, None))

    async def _worker(self) -> None:
        while True:
            if self._ordered:
                await self._room.acquire()
            taken = await self._take()
            if taken is None:
                return
            index, item = taken
            try:
                result = await self._work(index, item)
            except Exception as exc:
                await self._results.put((index, None, exc))
                return
            await self._results.put((index, result, None))

    async def _take(self) -> tuple[int, T] | None:
        async with self._pulling:
            if self._exhausted:
                return None
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                self._exhausted = True
                return None
            index, self._next = self._next, self._next + 1
            return index, item


async def _aiter(items: Items[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        try:
            async for item in items:
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
    else:
        for item in items:
            yield item
