"""The sinks of an LM call in a run: its raw text becomes events of named fields, its usage the run's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from dspy_live.core.call import Origin
from dspy_live.core.events import Event, Partial, Reasoning, Restart, TextDelta, Token, Usage
from dspy_live.core.outlet import Outlet, outlet_of
from dspy_live.core.sink import Pen, pen_of
from dspy_live.programs.fields.formats import Reading
from dspy_live.sansio.fields import FieldEvent, FieldText

if TYPE_CHECKING:
    from dspy_live.programs.run.run import Run


class CallUsageSink:
    """The sink of an LM call whose words nobody takes: the run gets the ``Usage`` alone."""

    __slots__ = ("_origin", "_run", "room")

    def __init__(self, run: Run, origin: Origin) -> None:
        self._run = run
        self._origin = origin
        self.room = run.room

    def push(self, event: Event) -> bool:
        return _push_usage(self._run, self._origin, event) if isinstance(event, Usage) else True


def _push_usage(run: Run, origin: Origin, event: Usage) -> bool:
    if event.lm_call != origin.lm_call or event.predictor != origin.predictor:
        # It was not made for this call: a layer shares one request among several.
        event = msgspec.structs.replace(event, predictor=origin.predictor, lm_call=origin.lm_call)
    return run.push(event)


class FieldStream:
    """The sink of one LM call in a run that streams.

    ``TextDelta`` becomes ``Token`` and ``Partial`` of the signature's fields, and all that passes gets the predictor's
    path and the LM call's number. A ``Restart`` takes back all that was said; a door that can't take words back then
    gives no room any more.

    Args:
        run: takes the events, on any thread.
        origin: the predictor and the number of the LM call.
        reading: how the reply is read; ``None`` where nobody knows, and no field is told of.
        verify: reads a whole reply as the adapter will, where the adapter's own reading is not told.
        thinking: the output field that DSPy fills from the model's own reasoning.
    """

    __slots__ = ("_parser", "_pen", "_pen_field", "_reading", "_right", "_run", "_said", "_thinking", "_thought",
                 "_verify", "origin", "room")  # fmt: skip

    def __init__(
        self,
        run: Run,
        origin: Origin,
        reading: Reading | None,
        verify: Callable[[str], Mapping[str, Any]] | None = None,
        thinking: str | None = None,
    ) -> None:
        self._run = run
        self.origin = origin
        self._reading = reading
        self._parser = None if reading is None else reading.parser()
        # Text of fields as the adapter has read them, where other text was said; None for a field taken back.
        self._right: dict[str, str | None] = {}
        self._said = False
        # The text field that was told of last, and the pen for it.
        self._pen_field: str | None = None
        self._pen: Pen | None = None
        self.room = run.room
        self._verify = verify
        self._thinking = thinking
        # The texts of the field ``thinking`` so far; None from its last token on.
        self._thought: list[str] | None = []

    def push(self, event: Event) -> bool:
        kind = type(event)
        room = True
        if kind is TextDelta:
            text, parser = event.text, self._parser  # type: ignore[union-attr]
            if text and parser is not None:
                for piece in parser.feed(text):
                    if piece.field == self._pen_field and not piece.last:  # type: ignore[union-attr]  # text, as before
                        room = self._pen(piece.text)  # type: ignore[union-attr,misc]
                    else:
                        room = self._emit(piece)
            return room
        if isinstance(event, Usage):
            return _push_usage(self._run, self.origin, event)
        if isinstance(event, Reasoning):
            return self._reason(event.text) if event.text else True
        return self._restart(event.reason) if isinstance(event, Restart) else self._run.push(event)

    def outlet(self, token: Token | None) -> Outlet | None:
        """Return the outlet of the field that was told of last, while it is open and more of its text may follow."""
        plain = None if self._parser is None else self._parser.plain()
        if plain is None or plain.field != self._pen_field:
            return None
        outlet = outlet_of(self._run, Token("", plain.field, self.origin.predictor, self.origin.lm_call))
        if outlet is not None:
            outlet.stop, outlet.lines, outlet.escapes = plain.stop, plain.lines, plain.escapes
            outlet.passed.append(plain.write)
            outlet.feed = self._hold
        return outlet

    def _hold(self, text: str) -> None:
        self.push(TextDelta(text))

    def usage_sink(self) -> CallUsageSink:
        """Return a sink for the other completions of this call, whose words nobody takes."""
        return CallUsageSink(self._run, self.origin)

    def finish(self, reply: str) -> None:
        """The reply is complete: release what was held back.

        An adapter that is no live one will not call :meth:`compare`; there the reply is read here.
        """
        if self._thinking is not None and self._thought:
            # Only now: a model may think again after its first words.
            self._thought = None
            self._push_token("", self._thinking, last=True)
        if self._parser is None:
            return
        for piece in self._parser.finish():
            self._emit(piece)
        if self._verify is not None:
            try:
                values = self._verify(reply)
            except Exception:
                return  # the adapter will meet the same failure, and fall back or raise
            self.compare(values)

    def replace(self, earlier: FieldStream) -> None:
        """The predictor asks the LM again: take back the words of its ``earlier`` LM call."""
        earlier._take_back("the predictor asks the LM again")

    def compare(self, values: Mapping[str, Any]) -> None:
        """Compare the text that was pushed with the values that the adapter has read; push a repair where they differ.

        It may be called again, as it is for an adapter that asks another: a field that is right is left alone.
        """
        if self._parser is None or self._reading is None:
            return
        said, ended = {**self._parser.texts(), **self._right}, self._parser.ended() | self._right.keys()
        for field in self._reading.texts:
            value = values.get(field)
            words = said.get(field)
            if value is None:
                if words is not None:
                    self._repair(field)
                continue
            true = value if isinstance(value, str) else str(value)
            if words == true and field in ended:
                continue
            if words is None:
                self._push_token(true, field, last=True)
            elif field not in ended and true.startswith(words):
                self._push_token(true[len(words) :], field, last=True)
            else:
                self._repair(field)
                self._push_token(true, field, last=True)
            self._right[field] = true

    def _reason(self, text: str) -> bool:
        self._said = True
        room = self._run.push(Reasoning(text, self.origin.predictor, self.origin.lm_call))
        if self._thinking is not None and self._thought is not None:
            self._thought.append(text)
            room = self._push_token(text, self._thinking)
        return room

    def _restart(self, reason: str) -> bool:
        """Take back everything that was said, and begin anew under the same number."""
        self._thought = []
        self._right = {}
        self._parser = None if self._reading is None else self._reading.parser()
        return self._take_back(reason)

    def _take_back(self, reason: str) -> bool:
        said, self._said = self._said, False
        self._pen_field = self._pen = None  # the next token is to be noted as said
        return self._run.push(Restart(self.origin.predictor, self.origin.lm_call, reason)) if said else True

    def _repair(self, field: str) -> None:
        self._right[field] = None
        reason = "the adapter has repaired the reply"
        self._run.push(Restart(self.origin.predictor, self.origin.lm_call, reason, (field,)))

    def _push_token(self, text: str, field: str, *, last: bool = False) -> bool:
        self._said = True
        return self._run.push(Token(text, field, self.origin.predictor, self.origin.lm_call, last))

    def _emit(self, piece: FieldEvent) -> bool:
        self._said = True
        origin = self.origin
        if isinstance(piece, FieldText):
            token = Token(piece.text, piece.field, origin.predictor, origin.lm_call, piece.last)
            room = self._run.push(token)
            if piece.field != self._pen_field and not piece.last:
                self._pen_field, self._pen = piece.field, pen_of(self._run, token)
            return room
        return self._run.push(Partial(piece.value, piece.field, origin.predictor, origin.lm_call, piece.final))
