"""The receiving end of a call's channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspy_live.core.errors import Closed
from dspy_live.core.events import Event

if TYPE_CHECKING:
    from dspy_live.runtime.channel.channel import Channel, ChannelStatistics


class ChannelReceiver:
    """The receiving end: a :class:`~dspy_live.core.service.Receiver` for one reader at a time."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __aiter__(self) -> ChannelReceiver:
        return self

    async def __anext__(self) -> Event:
        """Wait for one event. Raises the stream's failure once all before it was taken.

        Cancellation takes nothing.
        """
        channel = self._channel
        queue = channel._queue
        if not queue and not await self._wait():
            raise StopAsyncIteration
        before = len(queue)
        event = queue.take()
        channel._received += 1
        channel._took(before)
        return event

    async def receive_many(self) -> list[Event]:
        """Wait once and take all that is there; an empty list is the end.

        Raises the stream's failure once all before it was taken. Cancellation takes nothing.
        """
        channel = self._channel
        queue = channel._queue
        if not queue and not await self._wait():
            return []
        events = queue.take_all()
        channel._received += len(events)
        channel._took(len(events))
        return events

    def statistics(self) -> ChannelStatistics:
        """Return the counters and the state of now."""
        return self._channel.statistics()

    def close(self) -> None:
        """Stop reading: what waits is discarded, and the sender is told that nobody reads."""
        self._channel._break()

    async def _wait(self) -> bool:
        """Wait until something is there. False at the end, the failure raised."""
        channel = self._channel
        while not channel._queue:
            if channel._broken:
                raise Closed("this run's channel was closed by its reader")
            if channel._ended:
                if channel._exc is not None:
                    raise channel._exc
                return False
            if channel._waiter is not None:
                raise RuntimeError("another task is already reading this channel")
            waiter = channel._waiter = channel._loop.create_future()
            try:
                await waiter
            finally:
                if channel._waiter is waiter:
                    channel._waiter = None
        return True
