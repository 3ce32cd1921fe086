"""Books each request at the endpoint itself, inside of all layers: a retry's failed tries cost money too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Reasoning, TextDelta
from dspy_live.core.service import Service

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM


NO_TEXT = 4_000
"""What an image, a recording or a file in a prompt counts as, in characters of text: a guess, of a thousand tokens."""


class Booked:
    """An LM's endpoint whose requests are booked with whoever the call's ``attributes["books"]`` names."""

    def __init__(self, service: Service, lm: LM) -> None:
        self._service = service
        self._lm = lm

    def open(self, call: Call) -> Any:
        """Open the endpoint, and book what comes of it when it is left at the latest."""
        books = call.attributes.get("books")
        return self._service.open(call) if books is None else _Request(self._service, self._lm, call, books)


class _Request:
    """One request; a receiver, too. ``attach`` is there where the endpoint's own receiver has it."""

    def __init__(self, service: Service, lm: LM, call: Call, books: Any) -> None:
        self._inside = service.open(call)
        self._lm = lm
        self._books = books
        self._meters = call.attributes.get("meters", ())

    async def __aenter__(self) -> _Request:
        self._ticket = self._books.request_starts(self._lm, self._meters)
        try:
            self._events: Any = await self._inside.__aenter__()
        except BaseException as exc:
            self._ticket.failed(exc)
            raise
        if hasattr(self._events, "attach"):
            self.attach = self._attach
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A bound method kept on its own object is a cycle.
        self.__dict__.pop("attach", None)
        try:
            await self._inside.__aexit__(kind, error, traceback)
        finally:
            if not self._ticket.booked:
                self._ticket.failed(error)

    async def _attach(self, sink: Any) -> Any:
        response = await self._events.attach(sink)
        self._ticket.served(response)
        return response

    def __aiter__(self) -> _Request:
        return self

    async def __anext__(self) -> Event:
        event: Event = await self._events.__anext__()
        self._note(event)
        return event

    async def receive_many(self) -> list[Event]:
        """Return what is ready, as the endpoint has it."""
        batch: list[Event] = await self._events.receive_many()
        for event in batch:
            self._note(event)
        return batch

    def _note(self, event: Event) -> None:
        if isinstance(event, (TextDelta, Reasoning)):
            self._books.heard(len(event.text))
        elif isinstance(event, Completion):
            self._ticket.served(event.response)


def prompt_length(messages: Iterable[Any]) -> int:
    """Return how many characters of text a prompt has; a part that is no text counts as :data:`NO_TEXT`."""
    return sum(_length(message.get("content")) for message in messages if isinstance(message, Mapping))


def _length(content: Any) -> int:
    if not isinstance(content, list):
        return len(str(content or ""))
    return sum(_part_length(part) for part in content)


def _part_length(part: Any) -> int:
    if isinstance(part, Mapping):
        return len(part["text"]) if isinstance(part.get("text"), str) else NO_TEXT
    return len(str(part))
