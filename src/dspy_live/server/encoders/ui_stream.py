"""The Vercel AI SDK's UI message stream, version 1 (https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol).

The program's text is a text part in a step of its own, so that ``reset-step`` can take it back. Its other outputs are
data parts, ``data-NAME`` with the field's name as its id, so that a later value takes the place of an earlier one.
"""

from __future__ import annotations

from typing import Any, assert_never

from dspy_live.core.errors import Cancelled, LiveError
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
from dspy_live.server.encoders.chat import finish_reason
from dspy_live.server.encoders.front import REASONING, ReasoningText
from dspy_live.server.encoders.json import dumps, text
from dspy_live.server.encoders.live_text import LiveText
from dspy_live.server.errors import redacted
from dspy_live.server.runs.totals import RunTotals

DONE = b"data: [DONE]\n\n"


class UiStreamEncoder:
    """Encodes one run as a message of the assistant's.

    Args:
        run_id: the run's id, and the message's.
        schema: the program's.
        totals: the run's.
        metadata: what the message's metadata says from the beginning.
        hold: give the text out at the end only.
    """

    broken = False

    def __init__(
        self, run_id: str, schema: Schema, totals: RunTotals, metadata: dict[str, Any], *, hold: bool = False
    ) -> None:
        self._run_id = run_id
        self._totals = totals
        self._metadata = metadata
        self._outputs = {f.name for f in schema.outputs}
        self._text = LiveText(schema, hold=hold)
        self._reasoning = ReasoningText(schema)
        self._parts = 0
        self._text_part = b""
        self._reasoning_part = b""
        self._tools: dict[str, None] = {}
        self._beside: list[bytes] = []
        self._in_text_step = False

    def opening(self) -> bytes:
        """Return what stands before all parts."""
        return _chunk(type="start", messageId=self._run_id, messageMetadata=self._metadata) + _chunk(type="start-step")

    def encode(self, event: Event) -> bytes:
        match event:
            case Token():
                void, piece = self._text.token(event)
                if piece:
                    return (self._take_back() if void else b"") + self._delta(piece)
                return self._thought(event)
            case Reasoning():
                return self._thought(event)
            case Restart():
                end = self._end_reasoning()
                return end + self._take_back() if self._text.restart(event) else end
            case Partial(value, field):
                return self._data(field, value) if not self._outputs or field in self._outputs else b""
            case Tool():
                return self._end_reasoning() + self._tool(event)
            case Status(message, module, stage):
                return _chunk(
                    type="data-status", transient=True, data={"message": message, "module": module, "stage": stage}
                )
            case Custom(name, data):
                return self._also(_chunk(type=f"data-{name}", data=data))
            case Started() | Usage() | TextDelta():
                return b""
            case _:
                assert_never(event)

    def finish(self, result: Predicted) -> bytes:
        made = b""
        if rest := self._reasoning.rest(result):
            made += self._think(rest)
        made += self._end_reasoning()
        void, rest = self._text.rest(result)
        if void:
            made += self._take_back()
        if rest:
            made += self._delta(rest)
        for name, value in result.outputs.items():
            if name != self._text.field and name != REASONING and len(result.outputs) > 1:
                made += self._data(name, value)
        made += self._end_text() + _chunk(type="finish-step")
        metadata = self._metadata | {"run": self._totals.run(self._run_id)}
        return made + _chunk(type="finish", finishReason=finish_reason(self._totals), messageMetadata=metadata) + DONE

    def fail(self, error: LiveError) -> bytes:
        message = redacted(error.message)
        made = self._end_reasoning() + self._end_text()
        for tool in self._tools:
            made += _chunk(type="tool-output-error", toolCallId=tool, errorText=message, dynamic=True)
        if isinstance(error, Cancelled):
            return made + _chunk(type="abort", reason=message) + DONE
        return made + _chunk(type="error", errorText=message) + DONE

    def _delta(self, piece: str) -> bytes:
        made = b""
        if not self._text_part:
            made = self._end_reasoning()
            if not self._in_text_step:
                made += _chunk(type="finish-step") + _chunk(type="start-step")
                self._in_text_step = True
            self._text_part = self._new_part()
            made += _chunk(type="text-start", id=self._text_part.decode())
        return b'%bdata: {"type":"text-delta","id":"%b","delta":%b}\n\n' % (made, self._text_part, text(piece))

    def _end_text(self) -> bytes:
        part, self._text_part = self._text_part, b""
        return _chunk(type="text-end", id=part.decode()) if part else b""

    def _take_back(self) -> bytes:
        """Take the text back: the client drops its step, and is told again what else was in it."""
        self._text_part = b""
        reopened, self._reasoning_part = self._reasoning_part, b""
        made = _chunk(type="reset-step") + b"".join(self._beside)
        return made + (_chunk(type="reasoning-end", id=reopened.decode()) if reopened else b"")

    def _thought(self, event: Token | Reasoning) -> bytes:
        piece = self._reasoning.piece(event)
        return self._think(piece) if piece else b""

    def _think(self, piece: str) -> bytes:
        made = b""
        if not self._reasoning_part:
            self._reasoning_part = self._new_part()
            made = _chunk(type="reasoning-start", id=self._reasoning_part.decode())
        delta = b'data: {"type":"reasoning-delta","id":"%b","delta":%b}\n\n'
        return self._also(made + delta % (self._reasoning_part, text(piece)))

    def _end_reasoning(self) -> bytes:
        part, self._reasoning_part = self._reasoning_part, b""
        return self._also(_chunk(type="reasoning-end", id=part.decode())) if part else b""

    def _tool(self, tool: Tool) -> bytes:
        about: dict[str, Any] = {"toolCallId": tool.id, "dynamic": True, "providerExecuted": True}
        if tool.stage == "call":
            self._tools[tool.id] = None
            return self._also(_chunk(type="tool-input-available", toolName=tool.name, input=tool.arguments, **about))
        self._tools.pop(tool.id, None)
        if tool.stage == "error":
            return self._also(_chunk(type="tool-output-error", errorText=redacted(str(tool.result)), **about))
        return self._also(_chunk(type="tool-output-available", output=tool.result, **about))

    def _data(self, field: str, value: Any) -> bytes:
        return self._also(_chunk(type=f"data-{field}", id=field, data=value))

    def _also(self, chunk: bytes) -> bytes:
        """Remember a part that stands in the text's step, for when the step is taken back."""
        if self._in_text_step:
            self._beside.append(chunk)
        return chunk

    def _new_part(self) -> bytes:
        self._parts += 1
        return b"%d" % self._parts


def _chunk(**content: Any) -> bytes:
    return b"data: %b\n\n" % dumps(content)
