"""A receiver of events for a service that would rather push them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from dspy_live.core.call import Buffer, Call
from dspy_live.core.events import Completion, Event, Reasoning, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.runtime.channel.channel import Channel


class Reading:
    """Events that a task pushes into a channel. The task begins with the first read and ends with :meth:`aclose`.

    A read that is cancelled takes nothing, and the work goes on.

    Args:
        feed: pushes into the channel until the work has ended; what it raises is the stream's failure.
        buffer: the channel's bounds.
    """

    __slots__ = ("_buffer", "_channel", "_feed", "_task")

    def __init__(self, feed: Callable[[Channel], Awaitable[object]], buffer: Buffer) -> None:
        self._feed = feed
        self._buffer = buffer
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> Event:
        return await self._begun().receiver.__anext__()

    async def receive_many(self) -> list[Event]:
        """Wait once and take all that is there; an empty list is the end."""
        return await self._begun().receiver.receive_many()

    async def aclose(self) -> None:
        """Stop the work and wait until it has ended, through a cancellation, which is passed on then."""
        if self._task is None or self._channel is None:
            return
        self._channel.receiver.close()
        self._task.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as exc:
                cancelled = exc
        if cancelled is not None:
            raise cancelled

    def _begun(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(self._buffer)
            self._task = asyncio.get_running_loop().create_task(self._work(self._channel))
        return self._channel

    async def _work(self, channel: Channel) -> None:
        try:
            await self._feed(channel)
        except Exception as exc:
            channel.close(exc)
        else:
            channel.close()


class Readable(ABC):
    """An LM call that has the short way, read as a receiver of events by layers that look at each.

    A subclass sets ``_call``, and closes ``_reading`` where it is left.
    """

    __slots__ = ("_reading",)
    _call: Call
    _reading: Reading | None

    @abstractmethod
    async def attach(self, sink: Sink) -> Any:
        """Hand the words to ``sink`` and return the whole reply."""

    def __aiter__(self) -> Reading:
        return self._events()

    async def __anext__(self) -> Event:
        return await self._events().__anext__()

    async def receive_many(self) -> list[Event]:
        """Wait once and take all that is there; an empty list is the end."""
        return await self._events().receive_many()

    def _events(self) -> Reading:
        if self._reading is None:
            self._reading = attached(self.attach, self._call.buffer)
        return self._reading


def attached(attach: Callable[[Sink], Awaitable[Any]], buffer: Buffer) -> Reading:
    """Return the events of an LM that has only the short way: its words, then one ``Completion``."""

    async def feed(channel: Channel) -> None:
        channel.push(Completion(await attach(_ChannelSink(channel))))

    return Reading(feed, buffer)


class _ChannelSink:
    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def text(self, text: str) -> bool:
        return self._channel.push(TextDelta(text))

    def reasoning(self, text: str) -> bool:
        return self._channel.push(Reasoning(text, "", 0))

    def on_room(self, callback: Callable[[], object]) -> None:
        self._channel.on_room(callback)

    def restart(self, reason: str) -> None:
        raise RuntimeError("an LM's own service does not restart")
