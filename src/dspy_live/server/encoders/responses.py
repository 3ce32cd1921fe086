"""OpenAI's Responses, whole and as events (the Open Responses specification, https://www.openresponses.org).

The program's text is one message item; reasoning is a reasoning item; a tool that the program called is an item of
the type ``mcp_call``, the one that OpenAI's clients know for a tool that the server has called by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

from dspy_live.core.errors import LiveError, StreamBroken
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
from dspy_live.server.encoders.front import ReasoningText
from dspy_live.server.encoders.json import dumps, text
from dspy_live.server.encoders.plain import PlainText, plain_value
from dspy_live.server.encoders.response_items import Items
from dspy_live.server.errors import chat_error_object, error_status
from dspy_live.server.runs.totals import RunTotals


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a response says of its request.

    Args:
        run_id: the run's id; the response's is ``resp_`` with it.
        settings: the fields of the request that the response repeats.
        fields: the outputs that the text is a JSON object of; ``None`` for the program's text.
        hold: give the text out at the end only.
    """

    run_id: str
    settings: dict[str, Any]
    fields: tuple[str, ...] | None
    hold: bool


class ResponsesEncoder:
    """Encodes one run as a response.

    Args:
        head: what is known of it before it begins.
        schema: the program's.
        totals: the run's.
        stop: ends the run when text that was given out turns out to be wrong.
    """

    def __init__(
        self, head: ResponseHead, schema: Schema, totals: RunTotals, stop: Callable[[StreamBroken], object]
    ) -> None:
        self._text = PlainText(schema, stop, hold=head.hold or head.fields is not None)
        self._head = head
        self._schema = schema
        self._totals = totals
        self._created = int(time.time())
        self._seq = 0
        self._reasoning = ReasoningText(schema)
        self._items = Items(head.run_id, self._event)

    @property
    def broken(self) -> bool:
        return self._text.broken

    @property
    def truncated(self) -> bool:
        """True where the limit of tokens has cut a reply of the LM."""
        return self._totals.truncated

    def opening(self) -> bytes:
        """Return the two events that stand before all others."""
        response = self.response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def encode(self, event: Event) -> bytes:
        match event:
            case Token():
                if piece := self._text.feed(event):
                    return self._delta(piece)
                return self._thought(event)
            case Reasoning():
                return self._thought(event)
            case Restart():
                self._text.feed(event)
                return self._items.end_reasoning()
            case Tool():
                return self._items.end_reasoning() + self._items.tool(event)
            case Started() | Status() | Partial() | Usage() | Custom() | TextDelta():
                return b""
            case _:
                assert_never(event)

    def finish(self, result: Predicted) -> bytes:
        end = b""
        if rest := self._reasoning.rest(result):
            end += self._items.reasoning(rest)
        end += self._items.end_reasoning()
        rest = self._text.rest(result) if self._head.fields is None else self._json_text(result)
        if rest or not self._items.has_message:
            end += self._delta(rest)
        status = "incomplete" if self._totals.truncated else "completed"
        end += self._items.end_all(status)
        return end + self._event(f"response.{status}", response=self.response(status)) + b"data: [DONE]\n\n"

    def fail(self, error: LiveError) -> bytes:
        end = self._items.end_all("incomplete")
        response = self.response("failed", error)
        return end + self._event("response.failed", response=response) + b"data: [DONE]\n\n"

    def response(self, status: str, error: LiveError | None = None) -> dict[str, Any]:
        """Return the response object as it is now."""
        truncated = status == "incomplete"
        over = status != "in_progress"
        made: dict[str, Any] = {
            "id": f"resp_{self._head.run_id}",
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": _error(error, self._head.run_id) if error is not None else None,
            "incomplete_details": {"reason": "max_output_tokens"} if truncated else None,
            "output": list(self._items.done) if over else [],
            "usage": response_usage(self._totals) if over else None,
        }
        return made | self._head.settings

    def _thought(self, event: Token | Reasoning) -> bytes:
        piece = self._reasoning.piece(event)
        return self._items.reasoning(piece) if piece else b""

    def _delta(self, piece: str) -> bytes:
        before = self._items.end_reasoning() + self._items.message()
        self._seq += 1
        return before + self._items.text_delta(piece) % (self._seq, text(piece))

    def _json_text(self, result: Predicted) -> str:
        outputs = result.outputs
        names = self._head.fields if self._schema.outputs else tuple(outputs)
        if names is None:
            return plain_value(self._schema.last_text_output, outputs)
        return dumps({name: outputs[name] for name in names if name in outputs}).decode()

    def _event(self, kind: str, **data: Any) -> bytes:
        self._seq += 1
        body = {"type": kind, "sequence_number": self._seq} | data
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps(body))


_CODES = {429: "rate_limit_exceeded", 422: "invalid_prompt"}


def _error(error: LiveError, run_id: str) -> dict[str, Any]:
    """Return a failed response's error: its code is one of OpenAI's closed list, its type is our own code."""
    told = chat_error_object(error, run_id)["error"]
    code = _CODES.get(error_status(error), "server_error")
    return {"code": code, "message": told["message"], "type": error.code, "param": told["param"]}


def response_usage(totals: RunTotals) -> dict[str, Any]:
    """Return the usage object of a response."""
    sums = totals.usage()
    return {
        "input_tokens": sums["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": sums["cached_tokens"], "cache_write_tokens": 0},
        "output_tokens": sums["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": sums["reasoning_tokens"]},
        "total_tokens": sums["total_tokens"],
    }
