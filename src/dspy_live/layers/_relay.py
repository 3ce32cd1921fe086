"""Receivers that stand between an inner one and the reader.

They offer the short way (``attach``, see :mod:`dspy_live.core.sink`) where the inner receiver does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from dspy_live.core.events import Completion, Event, Partial, Predicted, Reasoning, TextDelta, Token
from dspy_live.core.service import Receiver
from dspy_live.core.sink import Sink, alive

SPEECH = frozenset({Token, Partial, Reasoning, TextDelta})
"""What an LM has said: a retry must take it back."""

ANSWERS = SPEECH | {Predicted, Completion}
"""What ends the wait for the first token."""

Attach = Callable[[Sink], Awaitable[Any]]


class Relay:
    """A receiver that is given by its ``_next_batch`` and, for the short way, its ``_attached``."""

    def __init__(self, inner: Any = None) -> None:
        self._inner = inner
        self._ready: deque[Event] = deque()

    def __aiter__(self) -> Relay:
        return self

    async def __anext__(self) -> Event:
        if not self._ready:
            self._ready.extend(await self._next_batch())
            if not self._ready:
                raise StopAsyncIteration
        return self._ready.popleft()

    async def receive_many(self) -> list[Event]:
        """Wait once and take all; an empty list is the end. Cancellation takes nothing."""
        if self._ready:
            events = list(self._ready)
            self._ready.clear()
            return events
        return await self._next_batch()

    @property
    def attach(self) -> Attach:
        """The short way; there is none (``AttributeError``) where the inner receiver has none."""
        inner: Attach | None = getattr(self._inner, "attach", None)
        if inner is None:
            raise AttributeError("attach")
        return lambda sink: self._attached(inner, sink)

    @property
    def statistics(self) -> Callable[[], Any]:
        """The inner receiver's own; there are none (``AttributeError``) where it has none."""
        inner: Callable[[], Any] | None = getattr(self._inner, "statistics", None)
        if inner is None:
            raise AttributeError("statistics")
        return inner

    async def _next_batch(self) -> list[Event]:
        raise NotImplementedError

    async def _attached(self, inner: Attach, sink: Sink) -> Any:
        raise NotImplementedError


class Ear:
    """A sink that notices the first words and hands all on."""

    __slots__ = ("_first", "_sink", "heard")

    def __init__(self, sink: Sink, first: Callable[[], object]) -> None:
        self._sink = sink
        self._first = first
        self.heard = False

    def text(self, text: str) -> bool:
        if not self.heard:
            self.heard = True
            self._first()
        return self._sink.text(text)

    def reasoning(self, text: str) -> bool:
        if not self.heard:
            self.heard = True
            self._first()
        return self._sink.reasoning(text)

    def alive(self) -> None:
        alive(self._sink)

    def on_room(self, callback: Callable[[], object]) -> None:
        self._sink.on_room(callback)

    def restart(self, reason: str) -> None:
        self._sink.restart(reason)


class Watched(Relay):
    """Passes everything on, and remembers how it went.

    ``failure`` is what the inner receiver raised, ``ended`` tells that it came to its end, ``answered`` that an
    LM has said something.
    """

    def __init__(self, inner: Receiver[Event]) -> None:
        super().__init__(inner)
        self.failure: Exception | None = None
        self.ended = False
        self.answered = False

    async def _next_batch(self) -> list[Event]:
        try:
            events: list[Event] = await self._inner.receive_many()
        except Exception as exc:
            self.failure = exc
            raise
        if not events:
            self.ended = True
        elif not self.answered and any(type(event) in ANSWERS for event in events):
            self._answer()
        return events

    async def _attached(self, inner: Attach, sink: Sink) -> Any:
        try:
            response = await inner(Ear(sink, self._answer))
        except Exception as exc:
            self.failure = exc
            raise
        self._answer()
        self.ended = True
        return response

    def _answer(self) -> None:
        if not self.answered:
            self.answered = True
            self._first_answer()

    def _first_answer(self) -> None:
        """For those who want to know when."""
