"""Sinks that encode a run's events and hand the result to whoever writes it. None raises: a failure ends the run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from dspy_live.core.events import SPOKEN, Event, Token, Usage
from dspy_live.core.outlet import Loan, Outlet
from dspy_live.core.sink import Discard, Pen, Sink
from dspy_live.runtime.scope import Room
from dspy_live.server.encoders.events import Encoder
from dspy_live.server.encoders.plain import PlainText
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.transport.exchange import Exchange

WaitForRoom: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class UsageSink(Discard):
    """For a reply that is the result alone: adds up what was used, in each of the totals."""

    __slots__ = ("_totals",)

    def __init__(self, *totals: RunTotals) -> None:
        self._totals = totals

    def push(self, event: Event) -> bool:
        if type(event) is Usage:
            for totals in self._totals:
                totals.add(event)
        return True


class FrameSink:
    """Writes the frame of each event.

    Args:
        encoder: makes the frames.
        write: takes a frame; False asks to pause.
        room: waits until a frame may be written.
        stop: ends the run, with what the encoder raised.
    """

    __slots__ = ("_encode", "_pen", "_stop", "_write", "room")

    def __init__(
        self,
        encoder: Encoder,
        write: Callable[[bytes], bool],
        room: WaitForRoom,
        stop: Callable[[Exception], object],
    ) -> None:
        self._encode = encoder.encode
        self._pen = encoder.pen
        self._write = write
        self._stop = stop
        self.room = room

    def push(self, event: Event) -> bool:
        try:
            frame = self._encode(event)
        except Exception as exc:
            self._stop(exc)
            return True
        return self._write(frame)

    def pen(self, token: Token) -> Pen:
        return self._pen(token, self._write)


class Out(Protocol):
    """Takes frames; an event stream."""

    write: Callable[[bytes], bool]
    """Takes a frame; False asks to pause. It may be another one after the first frame."""
    room: WaitForRoom
    """Waits until a frame may be written."""

    def write_soon(self, frame: bytes) -> bool:
        """As ``write``; the frame may wait for the next one, until the loop's turn ends."""
        ...

    @property
    def exchange(self) -> Exchange | None:
        """The reply that the frames go to, where it is one of ours and they go to it as they are."""


class StreamSink:
    """Writes the frame of each event to an event stream.

    Args:
        encoder: makes the frames.
        out: takes them.
        stop: ends the run, with what the encoder raised.
    """

    __slots__ = ("_encoder", "_out", "_stop", "room")

    def __init__(self, encoder: Encoder, out: Out, stop: Callable[[Exception], object]) -> None:
        self._encoder = encoder
        self._out = out
        self._stop = stop
        self.room = out.room

    def push(self, event: Event) -> bool:
        try:
            frame = self._encoder.encode(event)
        except Exception as exc:
            self._stop(exc)
            return True
        # What an LM call used comes right before the next one, or before the end.
        return self._out.write_soon(frame) if type(event) is Usage else self._out.write(frame)

    def pen(self, token: Token) -> Pen:
        return self._encoder.pen(token, self._out.write)

    def outlet(self, token: Token | None) -> Outlet | None:
        exchange = self._out.exchange
        return None if exchange is None or token is None else self._encoder.outlet(token, exchange)


class TextSink:
    """Writes the pieces of one text.

    Once the text is broken there is no room any more: who waits for it before asking the LM again is cancelled there.

    Args:
        text: which pieces there are.
        totals: counts them, and what was used.
        write: takes a piece; False asks to pause.
        room: waits until a piece may be written.
        loan: returns the socket that the pieces go to as they are, where there is one now.
    """

    __slots__ = ("_loan", "_room", "_text", "_totals", "_write")

    def __init__(
        self,
        text: PlainText,
        totals: RunTotals,
        write: Callable[[str], bool],
        room: WaitForRoom,
        loan: Callable[[], Loan | None] = lambda: None,
    ) -> None:
        self._loan = loan
        self._text = text
        self._totals = totals
        self._write = write
        self._room = room

    def push(self, event: Event) -> bool:
        if type(event) is Usage:
            self._totals.add(event)
        piece = self._text.feed(event)
        if not piece:
            return not self._text.broken
        self._totals.token()
        return self._write(piece)

    def outlet(self, token: Token | None) -> Outlet | None:
        loan = self._loan() if token is not None and self._text.follows(token) else None
        if loan is None:
            return None
        outlet = Outlet(loan)
        outlet.passed.append(self._text.gave)
        return outlet

    async def room(self) -> None:
        if self._text.broken:
            await asyncio.get_running_loop().create_future()
        await self._room()


class CreditSink:
    """Lets as much through as its reader has given credit for; from there on all events wait, in order.

    A token, a partial value and a piece of reasoning cost one each.
    """

    __slots__ = ("_credit", "_held", "_none_held", "_sink")

    def __init__(self, sink: Sink, credit: int) -> None:
        self._sink = sink
        self._credit = credit
        self._held: deque[Event] = deque()
        self._none_held = Room()

    def push(self, event: Event) -> bool:
        if self._held or not self._may_pass(event):
            self._held.append(event)
            self._none_held.set(False)
            return False
        return self._pass(event)

    async def room(self) -> None:
        await self.none_held()
        await self._sink.room()

    async def none_held(self) -> None:
        """Wait until the credit has sufficed for all events."""
        await self._none_held.wait()

    def add(self, credit: int) -> None:
        """Let more through."""
        self._credit += credit
        held = self._held
        while held and self._may_pass(held[0]):
            self._pass(held.popleft())
        if not held:
            self._none_held.set(True)

    def _may_pass(self, event: Event) -> bool:
        return self._credit > 0 or type(event) not in SPOKEN

    def _pass(self, event: Event) -> bool:
        self._credit -= type(event) in SPOKEN
        return self._sink.push(event)
