"""What the encoders of chat front ends have in common: their shape, their sink, and what counts as reasoning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from dspy_live.core.errors import LiveError
from dspy_live.core.events import Event, Predicted, Reasoning, Token, Usage
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.sinks import WaitForRoom
from dspy_live.server.runs.totals import RunTotals

REASONING = "reasoning"
"""The output field of a ``dspy.ChainOfThought`` that chat pages show as the model's reasoning."""


class FrontEncoder(Protocol):
    """Encodes one run for one protocol. No method is called after :meth:`finish` or :meth:`fail`."""

    @property
    def broken(self) -> bool:
        """True once text was given out that is wrong, in a protocol that can't take it back: the run is ended."""
        ...

    def encode(self, event: Event) -> bytes:
        """Return the bytes of one event; empty where the protocol has none for it."""
        ...

    def finish(self, result: Predicted) -> bytes:
        """Return the bytes that end a run that succeeded. Raises what :meth:`PlainText.rest` raises."""
        ...

    def fail(self, error: LiveError) -> bytes:
        """Return the bytes that close what is open and end a run that failed."""
        ...


class FrontSink:
    """Writes what an encoder makes of each event.

    Once the encoder's text is broken there is no room any more, as in a ``TextSink``.

    Args:
        encoder: makes the bytes.
        totals: counts tokens, and what was used.
        write: takes the bytes; False asks to pause.
        room: waits until more may be written.
        stop: ends the run, with what the encoder raised.
    """

    __slots__ = ("_encoder", "_room", "_stop", "_totals", "_write")

    def __init__(
        self,
        encoder: FrontEncoder,
        totals: RunTotals,
        write: Callable[[bytes], bool],
        room: WaitForRoom,
        stop: Callable[[Exception], object],
    ) -> None:
        self._encoder = encoder
        self._totals = totals
        self._write = write
        self._room = room
        self._stop = stop

    def push(self, event: Event) -> bool:
        if type(event) is Usage:
            self._totals.add(event)
        try:
            piece = self._encoder.encode(event)
        except Exception as exc:
            self._stop(exc)
            return True
        if not piece:
            return not self._encoder.broken
        if type(event) is Token:
            self._totals.token()
        return self._write(piece) and not self._encoder.broken

    async def room(self) -> None:
        if self._encoder.broken:
            await asyncio.get_running_loop().create_future()
        await self._room()


class ReasoningText:
    """Which text of a run is reasoning: the model's own channel, and an output field of that name beside the answer.

    Args:
        schema: the program's.
    """

    __slots__ = ("_field", "given")

    def __init__(self, schema: Schema) -> None:
        self._field = REASONING if schema.last_text_output != REASONING else None
        self.given = False
        """True once text of the field was given out."""

    def piece(self, event: Token | Reasoning) -> str:
        """Return the reasoning that an event brings; often none."""
        if type(event) is Reasoning:
            return event.text
        if type(event) is Token and event.field == self._field and event.text:
            self.given = True
            return event.text
        return ""

    def rest(self, result: Predicted) -> str:
        """Return the field's value where none of it was given out: nobody streamed, or the answer was in a cache."""
        value = result.outputs.get(self._field or "")
        return value if isinstance(value, str) and not self.given else ""
