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

    What was given out can't be taken back. So when a second LM call speaks in the same field, or the
    LM call starts again, the rest is held until the prediction says what is true: the missing end
    follows, or, where the text given out is not how the value begins, :class:`StreamBroken`.
    """

    def __init__(self, schema: Schema) -> None:
        self.field = schema.last_text_output
        self._speaker: int | None = None
        self._held = schema.live is not None and self.field not in schema.live
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
        if self._speaker is None:
            self._speaker = token.lm_call
        if self._held or token.lm_call != self._speaker:
            self._held = True
            return ""
        self._sent.append(token.text)
        return token.text

    def _rest(self, outputs: dict[str, Any]) -> str:
        sent = "".join(self._sent)
        if self.field not in outputs and sent:
            return ""  # a predictor's field that the program does not give on: there is nothing to hold it against
        value = plain_value(self.field, outputs)
        if not value.startswith(sent):
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
