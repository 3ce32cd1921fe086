"""Events to the text of one field, for wires that can't take words back: plain WebSocket and OpenAI's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from dspy_live.core.errors import StreamBroken
from dspy_live.core.events import (
    Custom,
    Event,
    Partial,
    Predicted,
    Reasoning,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
    Tool,
    Usage,
)
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.json import dumps


class PlainText:
    """Gives out the program's last ``str`` output while it comes; all pieces joined are its value.

    A piece that was given out can't be taken back. So only text of the predictor is given out that the schema names
    for the output. When another LM call adds text to the field, or a repair (a ``Restart`` with fields) takes it back,
    the rest is held until the result says what is true: the missing end follows, or, where the text that was given out
    is not how the value begins, :class:`StreamBroken`. A ``Restart`` of the whole LM call ends the run at once, before
    the LM is asked again.

    Args:
        schema: the program's.
        stop: called with a :class:`StreamBroken` when the run must end.
        hold: give nothing out before the result.

    Attributes:
        broken: true once ``stop`` was called.
    """

    def __init__(self, schema: Schema, stop: Callable[[StreamBroken], object], *, hold: bool = False) -> None:
        self.field = schema.last_text_output
        self.broken = False
        self._stop = stop
        self._predictor = schema.live.get(self.field or "") if schema.live is not None else None
        self._lm_call: int | None = None
        self._held = hold or (schema.live is not None and self._predictor is None)
        self._given: list[str] = []

    def feed(self, event: Event) -> str:
        """Return the text that follows from one event; often none."""
        match event:
            case Token():
                return self._token(event)
            case Restart():
                self._restart(event)
                return ""
            case Started() | Status() | Partial() | Reasoning() | Tool() | Usage() | Custom() | TextDelta():
                return ""
            case _:
                assert_never(event)

    def rest(self, result: Predicted) -> str:
        """Return what is missing of the value. Raises :class:`StreamBroken` where another text was given out."""
        given = "".join(self._given)
        if self.field not in result.outputs and given:
            return ""  # a predictor's field that the program does not give on: there is nothing to hold it against
        value = plain_value(self.field, result.outputs)
        if not value.startswith(given):
            raise _broken("the program's result has another text")
        return value[len(given) :]

    def follows(self, token: Token) -> bool:
        """True where further text of the field of ``token`` is given out as it comes."""
        if self._held or self.broken or token.field != self.field or token.lm_call != self._lm_call:
            return False
        return self._predictor is None or token.predictor == self._predictor

    def gave(self, text: str) -> None:
        """Take note of text that was given out elsewhere, where :meth:`follows` says so."""
        self._given.append(text)

    def _token(self, token: Token) -> str:
        if token.field != self.field or not token.text:
            return ""
        if self._predictor is not None and token.predictor != self._predictor:
            return ""
        if self._lm_call is None:
            self._lm_call = token.lm_call
        elif token.lm_call != self._lm_call:
            self._held = True
        if self._held:
            return ""
        self._given.append(token.text)
        return token.text

    def _restart(self, restart: Restart) -> None:
        if restart.lm_call != self._lm_call or (restart.fields and self.field not in restart.fields):
            return
        if not self._given:
            self._lm_call = None
            return
        self._held = True
        if not restart.fields:
            self.broken = True
            self._stop(_broken(restart.reason))


def _broken(reason: str) -> StreamBroken:
    return StreamBroken(
        "the beginning of the answer had been given out, and this protocol can't take words back "
        f"({reason}); ask again, or use /predict/stream or the typed WebSocket protocol"
    )


def plain_value(field: str | None, outputs: dict[str, Any]) -> str:
    """Return the one text that stands for a program's outputs.

    That is the field's value; where the program gave no such field, its last text; else all outputs as JSON.
    """
    if field is not None and field in outputs:
        value = outputs[field]
        return value if isinstance(value, str) else dumps(value).decode()
    texts = [value for value in outputs.values() if isinstance(value, str)]
    return texts[-1] if texts else dumps(outputs).decode()
