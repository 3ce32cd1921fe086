"""Receivers that stand between an inner one and the reader."""

from __future__ import annotations

from collections import deque

from dspy_live.core.events import Completion, Event, Partial, Predicted, Reasoning, TextDelta, Token
from dspy_live.core.service import Receiver

SPEECH = frozenset({Token, Partial, Reasoning, TextDelta})
"""What an LM has said: a retry must take it back."""

ANSWERS = SPEECH | {Predicted, Completion}
"""What ends the wait for the first token."""


class Relay:
    """A receiver that is given by its :meth:`receive_many` alone."""

    def __init__(self) -> None:
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

    async def _next_batch(self) -> list[Event]:
        raise NotImplementedError


class Watched(Relay):
    """Passes everything on, and remembers how it went.

    ``failure`` is what the inner receiver raised, ``ended`` tells that it came to its end, ``answered`` that an
    LM has said something.
    """

    def __init__(self, inner: Receiver[Event]) -> None:
        super().__init__()
        self._inner = inner
        self.failure: Exception | None = None
        self.ended = False
        self.answered = False

    async def _next_batch(self) -> list[Event]:
        try:
            events = await self._inner.receive_many()
        except Exception as exc:
            self.failure = exc
            raise
        if events:
            if not self.answered and any(type(event) in ANSWERS for event in events):
                self.answered = True
                self._first_answer()
        else:
            self.ended = True
        return events

    def _first_answer(self) -> None:
        """For those who want to know when."""
