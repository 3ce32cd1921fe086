"""The one bounded channel of a call: plain synchronous sending, asynchronous receiving."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dspy_live.core.call import Buffer
from dspy_live.core.errors import Broken, Closed
from dspy_live.core.events import Event
from dspy_live.runtime.channel.receiver import ChannelReceiver
from dspy_live.sansio.buffer_bound import next_bound
from dspy_live.sansio.overflow import make_queue


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A channel's state and counters, all in events.

    ``sent`` is everything that was pushed: ``received + waiting + dropped + coalesced + discarded``.
    ``bound`` is the bound now, ``size`` the one it started with, ``high_water`` the most that ever waited.
    ``coalesced`` were merged into another event, nothing of their text is lost; ``dropped`` fell to
    ``drop_oldest``; ``discarded`` came when the reader had gone, or a straggling thread sent them after the end.
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
    """The sending end; the receiving end is :attr:`receiver`. Each is closed by its own side.

    Make it on the loop's own thread. ``push`` may be called on any thread: one that is not the
    loop's never waits for room, its tokens merge by field, and the loop is woken once for a batch.

    Args:
        buffer: bounds and overflow policy; 64 tokens and ``"block"`` by default.
        loop: the loop of the reader; the running one by default.
    """

    __slots__ = (
        "_broken",
        "_buffer",
        "_closed",
        "_discarded",
        "_ended",
        "_exc",
        "_full_since",
        "_high_water",
        "_inbox",
        "_loop",
        "_queue",
        "_received",
        "_room",
        "_thread",
        "_times_full",
        "_waiter",
        "_waking",
    )

    def __init__(self, buffer: Buffer | None = None, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._buffer = buffer if buffer is not None else Buffer()
        self._loop = loop if loop is not None else asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._queue = make_queue(self._buffer)
        self._inbox: deque[Event] = deque()
        self._waking = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: list[Callable[[], object]] = []
        self._full_since: float | None = None
        self._closed = False
        self._broken = False
        self._ended = False
        self._exc: BaseException | None = None
        self._high_water = 0
        self._received = 0
        self._discarded = 0
        self._times_full = 0

    @property
    def receiver(self) -> ChannelReceiver:
        """The receiving end. Not kept here: the two would hold each other, and wait for the garbage collector."""
        return ChannelReceiver(self)

    # The sender's side.

    def push(self, event: Event) -> bool:
        """Hand an event to the reader. Never blocks, never refuses for want of room.

        Returns True while there is room. False means that the producer should pause its source and
        go on after :meth:`on_room` or :meth:`room`; what it has in hand it may still push. False too when the
        reader has gone: the event is discarded, and the scope of the call will end soon.

        From a thread that is not the loop's the answer is only a hint.

        Raises:
            Closed: after :meth:`close`, when called on the loop's thread.
        """
        if threading.get_ident() != self._thread:
            return self.push_threadsafe(event)
        if self._inbox:
            # What a thread has sent before this one was pushed comes before it.
            self._take_inbox()
        if self._ended:
            return self._refuse()
        room = self._queue.put(event)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        if not room and self._full_since is None:
            self._became_full()
        return room

    def push_threadsafe(self, event: Event) -> bool:
        """As :meth:`push`, from any thread; it takes effect when the loop gets to it, in order for each thread."""
        self._inbox.append(event)
        # No lock: the loop clears the flag before it empties the inbox, so that a thread which finds it set
        # after its append is sure to be seen. Two threads that both find it clear cost one wake-up more.
        if not self._waking:
            self._waking = True
            self._wake_from_thread(self._take_inbox)
        return not (self._queue.full or self._ended)

    def close(self, exc: BaseException | None = None) -> None:
        """End the stream: the reader takes what waits, then sees the end, or ``exc``.

        The first call counts. May be called from any thread.
        """
        if threading.get_ident() != self._thread:
            self._wake_from_thread(self._close, exc)
        else:
            self._close(exc)

    @property
    def full(self) -> bool:
        """True when a producer should wait; never when the reader has gone."""
        return not self._broken and self._queue.full

    @property
    def bound(self) -> int:
        """How many tokens may wait now; moves between ``size`` and ``max_size`` in an adaptive buffer."""
        return self._queue.bound

    @property
    def closed(self) -> bool:
        """True when the sender has closed its end."""
        return self._closed

    @property
    def broken(self) -> bool:
        """True when the reader has gone: nothing that is pushed now will be read."""
        return self._broken

    def on_room(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` once, on the loop, when there is room, or when the reader has gone.

        "Room" is half of the bound, so that a producer is not woken for every token. It is called
        soon if there is room now. Look at :attr:`full` in it: another producer may have been quicker.
        """
        if self._full_since is None or self._ended:
            self._loop.call_soon(callback)
        else:
            self._room.append(callback)

    async def room(self) -> None:
        """Wait until there is room; returns at once when there is. Cancellation changes nothing.

        Raises:
            Broken: the reader has gone.
            Closed: this end was closed.
        """
        while self.full and not self._ended:
            ready = self._loop.create_future()
            self.on_room(lambda ready=ready: ready.done() or ready.set_result(None))  # type: ignore[misc]
            await ready
        if self._broken:
            raise Broken("the reader of this run's channel has gone")
        if self._closed:
            raise Closed("this run's channel was closed by its sender")

    def statistics(self) -> ChannelStatistics:
        """Return the counters and the state of now."""
        queue = self._queue
        waiting = len(queue) + len(self._inbox)
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

    # What both sides share.

    def _refuse(self) -> bool:
        self._discarded += 1
        if self._closed:
            raise Closed("this run's channel was closed by its sender")
        return False

    def _became_full(self) -> None:
        self._full_since = self._loop.time()
        self._times_full += 1

    def _wake_from_thread(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop is closed, so the reader is gone with it: a straggling thread has nobody to tell.
            self._discarded += len(self._inbox)
            self._inbox.clear()

    def _take_inbox(self) -> None:
        self._waking = False
        inbox = self._inbox
        while inbox:
            event = inbox.popleft()
            if self._ended:
                self._discarded += 1
            elif not self._queue.put_merging(event) and self._full_since is None:
                self._became_full()
        self._wake_reader()

    def _close(self, exc: BaseException | None) -> None:
        if self._closed:
            return
        self._take_inbox()
        self._closed = self._ended = True
        self._exc = exc
        self._wake_reader()
        self._give_room()

    def _break(self) -> None:
        if self._broken:
            return
        self._broken = self._ended = True
        self._high_water = max(self._high_water, len(self._queue))
        self._discarded += len(self._queue.take_all())
        self._wake_reader()
        self._give_room()

    def _wake_reader(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _took(self, before: int) -> None:
        """Account for a take; ``before`` is how much waited. A queue only grows between two takes."""
        if before > self._high_water:
            self._high_water = before
        if self._full_since is not None and self._queue.roomy:
            self._give_room()

    def _give_room(self) -> None:
        since, self._full_since = self._full_since, None
        buffer = self._buffer
        if since is not None and buffer.max_size is not None and not self._ended:
            full_for = self._loop.time() - since
            self._queue.bound = next_bound(self._queue.bound, buffer.size, buffer.max_size, full_for)
            if self._queue.full:
                # It shrank to what waits. Nobody is called, the next take looks again.
                self._full_since = self._loop.time()
                return
        callbacks, self._room = self._room, []
        for callback in callbacks:
            self._loop.call_soon(callback)
