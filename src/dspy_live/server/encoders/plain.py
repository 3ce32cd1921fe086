"""Events to the text of one field, for doors that can't take words back: plain WebSocket and OpenAI."""

from __future__ import annotations

from typing import assert_never

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
        self._held = False
        self._sent: list[str] = []

    def feed(self, event: Event) -> str:
        """Return the text that follows from one event; often none."""
        match event:
            case Token():
                return self._token(event)
            case Restart(_, lm_call, _, fields):
                if lm_call == self._speaker and (not fields or self.field in fields):
                    self._held = bool(self._sent)
                    self._speaker = None
                return ""
            case Predicted(outputs):
                value = outputs.get(self.field) if self.field is not None else None
                return self._rest(value if isinstance(value, str) else dumps(value or outputs).decode())
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

    def _rest(self, value: str) -> str:
        sent = "".join(self._sent)
        if not value.startswith(sent):
            raise StreamBroken(
                "the text changed after its beginning had been sent, and this door can't take words back; "
                "use /predict/stream or the typed WebSocket protocol"
            )
        return value[len(sent) :]
