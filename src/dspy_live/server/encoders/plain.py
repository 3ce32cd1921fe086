"""Events to the text of one field, for doors that can't take words back: plain WebSocket and OpenAI."""

from __future__ import annotations

from typing import Any, assert_never

from dspy_live.core.errors import StreamBroken
from dspy_live.core.events import (
    Completion,
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
    """Picks the program's last ``str`` output out of its events; all pieces joined are its value.

    What was given out can't be taken back. So only the predictor is believed that the schema names for
    the output, and when it speaks a second time, or its LM call starts again, the rest is held until the
    prediction says what is true: the missing end follows, or, where the text given out is not how the
    value begins, :class:`StreamBroken`.

    Args:
        schema: the program's.
        hold: give nothing out before the end.

    Attributes:
        unsteady: true once the text has turned out to be one that should have been held.
    """

    def __init__(self, schema: Schema, *, hold: bool = False) -> None:
        self.field = schema.last_text_output
        self.unsteady = False
        self._predictor = schema.live.get(self.field or "") if schema.live is not None else None
        self._speaker: int | None = None
        self._held = hold or (schema.live is not None and self._predictor is None)
        self._sent: list[str] = []

    def feed(self, event: Event) -> str:
        """Return the text that follows from one event; often none."""
        match event:
            case Token():
                return self._token(event)
            case Restart(_, lm_call, _, fields):
                if lm_call == self._speaker and (not fields or self.field in fields):
                    self._held = self._held or bool(self._sent)
                    self._speaker = None
                return ""
            case Predicted(outputs):
                return self._rest(outputs)
            case (
                Started()
                | Status()
                | Partial()
                | Reasoning()
                | Tool()
                | Usage()
                | Custom()
                | TextDelta()
                | Completion()
            ):
                return ""
            case _:
                assert_never(event)

    def _token(self, token: Token) -> str:
        if token.field != self.field or not token.text:
            return ""
        if self._predictor is not None and token.predictor != self._predictor:
            return ""
        if self._speaker is None:
            self._speaker = token.lm_call
        elif token.lm_call != self._speaker:
            self._held = self.unsteady = True
        if self._held:
            return ""
        self._sent.append(token.text)
        return token.text

    def _rest(self, outputs: dict[str, Any]) -> str:
        sent = "".join(self._sent)
        if self.field not in outputs and sent:
            return ""  # a predictor's field that the program does not give on: there is nothing to hold it against
        value = plain_value(self.field, outputs)
        if not value.startswith(sent):
            self.unsteady = True
            raise StreamBroken(
                "the text changed after its beginning had been sent, and this door can't take words back; "
                "use /predict/stream or the typed WebSocket protocol"
            )
        return value[len(sent) :]


def plain_value(field: str | None, outputs: dict[str, Any]) -> str:
    """Return the one text that stands for a program's outputs.

    That is the field's value; where the program gave no such field, its last text; else all outputs as JSON.
    """
    if field is not None and field in outputs:
        value = outputs[field]
        return value if isinstance(value, str) else dumps(value).decode()
    texts = [value for value in outputs.values() if isinstance(value, str)]
    return texts[-1] if texts else dumps(outputs).decode()
