"""A run on a server, as its client reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol

from dspy_live.client.reply import Reply
from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import Event, Predicted, Token
from dspy_live.core.sink import Sink
from dspy_live.layers.deadline import Deadline
from dspy_live.runtime.channel import Reader


class RunSource(Protocol):
    """The service of one run: it is called once. ``id`` and ``reply`` are known as the server tells them."""

    id: str
    reply: Reply | None

    async def __call__(self, call: Call, sink: Sink, /) -> Predicted: ...


class RemoteRun:
    """One run; ``async with`` it and iterate over its events. Its outputs are in :attr:`reply` then.

    Leaving the block before the end cancels the run on the server. Iterating raises the run's failure
    as the class that it has on the server: :class:`~dspy_live.core.errors.InputError` and so on.
    """

    def __init__(self, source: RunSource, call: Call, buffer: Buffer | None, timeout: float | None = None) -> None:
        self._source = source
        self._service = source if timeout is None else Deadline(timeout)(source)
        self._call = call
        self._buffer = buffer
        self._reader: Reader | None = None
        self._taken = 0
        self._ended = False

    @property
    def id(self) -> str:
        """The run's id on the server, empty before it is known."""
        return self._source.id

    @property
    def reply(self) -> Reply | None:
        """The outputs, usage and duration, once the prediction has come."""
        return self._source.reply

    async def __aenter__(self) -> RemoteRun:
        self._reader = Reader(self._service, self._call, self._buffer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            await self._reader.aclose()

    def __aiter__(self) -> RemoteRun:
        return self

    async def __anext__(self) -> Event:
        """Wait for one event; raises the run's failure after all before it was taken."""
        try:
            event = await self._events.__anext__()
        except StopAsyncIteration:
            self._ended = True
            raise
        self._taken += 1
        return event

    async def receive_many(self) -> list[Event]:
        """Wait once and take all events that are there; an empty list is the end. Cancellation takes nothing."""
        events = await self._events.receive_many()
        self._taken += len(events)
        self._ended = not events
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
    def _events(self) -> Reader:
        if self._reader is None:
            raise RuntimeError("use the run as: async with client.stream(...) as run")
        return self._reader
