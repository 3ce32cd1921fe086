"""A run on a server, as its client sees it: events in, and a way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

from dspy_live.client.reply import Reply
from dspy_live.core.call import Buffer
from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import Event, Started, Token
from dspy_live.runtime.channel.channel import Channel
from dspy_live.runtime.channel.receiver import ChannelReceiver


class RemoteRun:
    """One run; ``async with`` it and iterate over its events. A :class:`~dspy_live.core.service.Receiver`.

    Leaving the block before the end cancels the run on the server. Iterating raises the run's failure
    as the class that it has on the server: :class:`~dspy_live.core.errors.InputError` and so on.

    Attributes:
        id: the run's id on the server, empty before it is known.
        reply: the outputs and figures, once the prediction has come.
    """

    def __init__(self, buffer: Buffer) -> None:
        self.id = ""
        self.reply: Reply | None = None
        self._buffer = buffer
        self._taken = 0
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> RemoteRun:
        self._channel = Channel(self._buffer)
        self._task = asyncio.create_task(self._pump(self._channel))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            self._channel.receiver.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()

    def __aiter__(self) -> RemoteRun:
        return self

    async def __anext__(self) -> Event:
        """Wait for one event; raises the run's failure after all before it was taken."""
        event = await self._receiver.__anext__()
        self._took([event])
        return event

    async def receive_many(self) -> list[Event]:
        """Wait once and take all events that are there; an empty list is the end. Cancellation takes nothing."""
        events = await self._receiver.receive_many()
        self._took(events)
        return events

    async def text(self, field: str | None = None) -> AsyncIterator[str]:
        """Iterate over the text of one field as it arrives, by default of every field.

        For people: words that the server takes back (a ``Restart``) have been given out already.
        """
        while events := await self.receive_many():
            for event in events:
                if isinstance(event, Token) and event.text and (field is None or event.field == field):
                    yield event.text

    async def result(self) -> Reply:
        """Take what is left and return the reply. Raises the run's failure."""
        while await self.receive_many():
            pass
        if self.reply is None:
            raise LifecycleError("the run ended without a prediction")
        return self.reply

    @property
    def _receiver(self) -> ChannelReceiver:
        if self._channel is None:
            raise RuntimeError("use the run as: async with client.stream(...) as run")
        return self._channel.receiver

    def _took(self, events: list[Event]) -> None:
        self._taken += len(events)

    def _begun(self, event: Event) -> None:
        if isinstance(event, Started) and not self.id:
            self.id = event.run

    async def _pump(self, channel: Channel) -> None:
        raise NotImplementedError
