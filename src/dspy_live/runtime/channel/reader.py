"""Reading a run: the one place where a service gets a task and a channel of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import Cancelled, Closed
from dspy_live.core.events import Event, Result
from dspy_live.core.service import Service
from dspy_live.runtime.channel.channel import Channel, ChannelStatistics
from dspy_live.runtime.scope import ended


class Reader:
    """A run that is read: ``async for event in reader``, then :attr:`result`.

    Made by :func:`read`; one that is made by hand starts the run at once and is closed with :meth:`aclose`. One task
    reads at a time.

    Args:
        service: runs in a task of its own.
        call: the call to run.
        buffer: bounds of the channel between the two.
    """

    def __init__(self, service: Service, call: Call, buffer: Buffer | None = None) -> None:
        self._result: Result | None = None
        self._left = False
        self._channel = channel = Channel(buffer, lambda: self._task.done())
        self._task: asyncio.Task[Result] = asyncio.get_running_loop().create_task(
            service(call, channel), name=f"dspy-live run {call.id}"
        )
        self._task.add_done_callback(lambda _: channel.wake())

    @property
    def result(self) -> Result:
        """The run's result; known once the iteration has ended. ``RuntimeError`` before."""
        if self._result is None:
            raise RuntimeError("the run has no result yet: read its events to their end first")
        return self._result

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Event:
        """Wait for one event. Raises the run's failure once all before it was taken. Cancellation takes nothing."""
        event = await self._channel.receive()
        if event is None:
            self._finish()
            raise StopAsyncIteration
        return event

    async def receive_many(self) -> list[Event]:
        """Wait once and take all that is there; an empty list is the end.

        Raises the run's failure once all before it was taken. Cancellation takes nothing.
        """
        events = await self._channel.receive_many()
        if not events:
            self._finish()
        return events

    def statistics(self) -> ChannelStatistics:
        """Return the channel's counters and its state of now."""
        return self._channel.statistics()

    async def aclose(self) -> None:
        """Cancel the run and wait until it has ended, through cancellations, which are raised then."""
        self._left = True
        self._channel.close()
        self._task.cancel()
        try:
            await ended(self._task)
        finally:
            if self._task.done() and not self._task.cancelled():
                self._task.exception()  # nobody is there to hear of it

    def abandon(self) -> None:
        """Cancel the run without waiting for its end; any number of times, on the loop's thread."""
        self._left = True
        self._channel.close()
        self._task.cancel()
        self._task.add_done_callback(_hear)

    def _finish(self) -> None:
        if self._left:
            raise Closed("this run was left by its reader")
        if self._task.cancelled():
            raise Cancelled("the run was cancelled")
        self._result = self._task.result()


def _hear(task: asyncio.Task[Result]) -> None:
    if not task.cancelled():
        task.exception()


@asynccontextmanager
async def read(service: Service, call: Call, buffer: Buffer | None = None) -> AsyncIterator[Reader]:
    """Run ``service`` in a task and read its events: ``async with read(service, call) as reader``.

    Leaving the block early, by an exception or a cancellation too, cancels the run and waits for its end.

    Args:
        service: the service to run.
        call: the call to run.
        buffer: bounds and overflow policy of the channel; 64 tokens and ``"block"`` by default.
    """
    reader = Reader(service, call, buffer)
    try:
        yield reader
    finally:
        await reader.aclose()
