"""The one bounded channel: a Sink with a reader, for callers that read a run instead of writing it on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from dspy_live.core.call import Buffer
from dspy_live.core.events import Event
from dspy_live.runtime.scope import Room
from dspy_live.sansio.buffer_bound import next_bound
from dspy_live.sansio.overflow import make_queue


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A channel's state and counters, all in events.

    ``sent`` is everything that was pushed: ``received + waiting + dropped + coalesced + discarded``.
    ``bound`` is the bound now, ``size`` the one it started with, ``high_water`` the most that ever waited.
    ``coalesced`` were merged into another event, nothing of their text is lost; ``dropped`` fell to
    ``drop_oldest``; ``discarded`` came when the reader had gone.
    """

    size: int
    bound: int
    waiting: int
    high_water: int
    sent: int
    received: int
    dropped: int
    coalesced: int
    discarded: int
    full: bool
    times_full: int


class Channel:
    """A :class:`~dspy_live.core.sink.Sink` whose events wait for a reader, for one reader at a time.

    Everything of it belongs to the loop's thread. Once :meth:`close` was called nobody reads any more: events that are
    pushed then are discarded and there is always room, so that the work can end.

    Args:
        buffer: bounds and overflow policy; 64 tokens and ``"block"`` by default.
        over: tells the reader whether more can come; it is asked while nothing waits.
    """

    __slots__ = (
        "_buffer",
        "_closed",
        "_discarded",
        "_full_since",
        "_high_water",
        "_loop",
        "_over",
        "_queue",
        "_received",
        "_room",
        "_times_full",
        "_waiter",
    )

    def __init__(self, buffer: Buffer | None = None, over: Callable[[], bool] = lambda: False) -> None:
        self._buffer = buffer if buffer is not None else Buffer()
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._queue = make_queue(self._buffer)
        self._room = Room()
        self._waiter: asyncio.Future[None] | None = None
        self._full_since: float | None = None
        self._closed = False
        self._high_water = 0
        self._received = 0
        self._discarded = 0
        self._times_full = 0

    # The Sink.

    def push(self, event: Event) -> bool:
        """Hand an event to the reader. False asks the source to pause until :meth:`room`."""
        if self._closed:
            self._discarded += 1
            return True
        room = self._queue.put(event)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        if not room and self._full_since is None:
            self._full_since = self._loop.time()
            self._times_full += 1
            self._room.set(False)
        return room

    async def room(self) -> None:
        """Wait until half of the bound is free, so that a source is not woken for every token, or the reader left."""
        await self._room.wait()

    # The reader.

    async def receive_many(self) -> list[Event]:
        """Wait once and take all that is there; an empty list is the end. Cancellation takes nothing."""
        queue = self._queue
        if not queue and not await self._wait():
            return []
        events = queue.take_all()
        self._received += len(events)
        self._took(len(events))
        return events

    async def receive(self) -> Event | None:
        """Wait for one event; ``None`` is the end. Cancellation takes nothing."""
        queue = self._queue
        if not queue and not await self._wait():
            return None
        before = len(queue)
        event = queue.take()
        self._received += 1
        self._took(before)
        return event

    def wake(self) -> None:
        """Let a waiting reader look again whether more can come."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def close(self) -> None:
        """The reader leaves: waiting events are discarded, and sources that wait for room go on."""
        if self._closed:
            return
        self._closed = True
        self._high_water = max(self._high_water, len(self._queue))
        self._discarded += len(self._queue.take_all())
        self.wake()
        self._full_since = None
        self._room.set(True)

    @property
    def full(self) -> bool:
        """True while sources should wait."""
        return not self._room.open

    @property
    def bound(self) -> int:
        """How many tokens may wait now; moves between ``size`` and ``max_size`` in an adaptive buffer."""
        return self._queue.bound

    def statistics(self) -> ChannelStatistics:
        """Return the counters and the state of now."""
        queue = self._queue
        waiting = len(queue)
        sent = self._received + waiting + queue.dropped + queue.coalesced + self._discarded
        return ChannelStatistics(
            size=self._buffer.size,
            bound=queue.bound,
            waiting=waiting,
            high_water=max(self._high_water, waiting),
            sent=sent,
            received=self._received,
            dropped=queue.dropped,
            coalesced=queue.coalesced,
            discarded=self._discarded,
            full=self.full,
            times_full=self._times_full,
        )

    async def _wait(self) -> bool:
        """Wait until something is there. False at the end."""
        while not self._queue:
            if self._closed or self._over():
                return False
            if self._waiter is not None:
                raise RuntimeError("another task is already reading this channel")
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None
        return True

    def _took(self, before: int) -> None:
        """Account for a take; ``before`` is how much waited. A queue only grows between two takes."""
        if before > self._high_water:
            self._high_water = before
        since, buffer, queue = self._full_since, self._buffer, self._queue
        if since is None or not queue.roomy:
            return
        if buffer.max_size is not None:
            now = self._loop.time()
            queue.bound = next_bound(queue.bound, buffer.size, buffer.max_size, now - since)
            if queue.full:  # it shrank to the waiting events: nobody is woken, the next take looks again
                self._full_since = now
                return
        self._full_since = None
        self._room.set(True)
