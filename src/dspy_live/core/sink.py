"""Where a service tells what happens while it works on a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from dspy_live.core.events import Event, Token

Pen: TypeAlias = Callable[[str], bool]
"""``pen(text)`` means ``push(Token(text, …))`` for the field, the predictor and the LM call that it was made for.

It does the same in every respect and at any time, with less work.
"""


class Sink(Protocol):
    """Takes the events of one call. A source pushes, and pauses when there is no room."""

    def push(self, event: Event) -> bool:
        """Take an event, on the event loop's thread. Never waits, and never raises a failure of the sink's own.

        Returns True while there is room. False asks the source to pause and to go on after :meth:`room`; what the
        source has in hand it may still push. A sink that has ended its run because it can't take words back
        answers False for good: its source waits for room until it is cancelled.
        """
        ...

    async def room(self) -> None:
        """Wait until there is room. A level, not an edge: any number may wait, and it returns at once when there is
        room or when nobody listens any more. Cancellation changes nothing."""
        ...


def pen_of(sink: Sink, token: Token) -> Pen:
    """Return a pen for the further text of the field of ``token``, which ``sink`` has been pushed already.

    A sink that can write text without an event has a method ``pen(token)``; for any other one the pen pushes events.
    The method is looked for in the sink's class: a sink that hands unknown attributes on to another sees all events.
    """
    make: Callable[[Sink, Token], Pen] | None = getattr(type(sink), "pen", None)
    return pushing(sink, token) if make is None else make(sink, token)


def pushing(sink: Sink, token: Token) -> Pen:
    """Return a pen that pushes an event for each text."""
    field, predictor, lm_call = token.field, token.predictor, token.lm_call

    def push_text(text: str) -> bool:
        return sink.push(Token(text, field, predictor, lm_call))

    return push_text


class Discard:
    """The sink of a caller that wants the result alone."""

    __slots__ = ()

    def push(self, event: Event) -> bool:
        return True

    async def room(self) -> None:
        return None


DISCARD = Discard()
"""Has no state, so one is enough."""
