"""A run as MCP's progress notifications and a tool's result (https://modelcontextprotocol.io/specification/2026-07-28)."""

from __future__ import annotations

from typing import Any, assert_never

from dspy_live.core.errors import InputError, LiveError
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
from dspy_live.server.encoders.json import dumps
from dspy_live.server.errors import error_object, redacted
from dspy_live.server.runs.totals import RunTotals

TOKENS_PER_NOTE = 32
"""A note of progress stands for so many tokens: a client shows a line of text, and each is a message."""
PREFIX = "dspy-live/"
"""The beginning of our own names in ``_meta``."""


class McpEncoder:
    """Encodes one run as the call of a tool.

    Args:
        request_id: the id of the client's request.
        run_id: the run's id.
        token: the client's progress token; without one (``None``) it hears nothing before the result.
        totals: the run's.
        meta: what stands in the ``_meta`` of the result.
        modern: the client speaks the revision of 2026 or a later one.
    """

    broken = False

    def __init__(
        self, request_id: Any, run_id: str, token: Any, totals: RunTotals, meta: dict[str, Any], *, modern: bool
    ) -> None:
        self._id = request_id
        self._run_id = run_id
        self._token = token
        self._totals = totals
        self._meta = meta
        self._type = {"resultType": "complete"} if modern else {}
        self._progress = 0
        self._tokens = 0

    def encode(self, event: Event) -> bytes:
        match event:
            case Token():
                self._tokens += 1
                return self._note(f"tokens: {self._tokens}") if self._tokens % TOKENS_PER_NOTE == 1 else b""
            case Status(message):
                return self._note(message)
            case Tool(name, stage):
                return self._note(f"{name}: {stage}")
            case Partial(field=field, final=final):
                return self._note(f"{field} is complete") if final else b""
            case Restart(reason=reason):
                return self._note(f"again: {redacted(reason)}")
            case Custom(name):
                return self._note(name)
            case Started() | Reasoning() | Usage() | TextDelta():
                return b""
            case _:
                assert_never(event)

    def finish(self, result: Predicted) -> bytes:
        return sse(self.result(result))

    def fail(self, error: LiveError) -> bytes:
        return sse(self.failure(error))

    def result(self, result: Predicted) -> dict[str, Any]:
        """Return the reply of a run that succeeded."""
        content = [{"type": "text", "text": dumps(result.outputs).decode()}]
        meta = self._meta | {f"{PREFIX}run": self._totals.run(self._run_id)}
        return self._reply({"content": content, "structuredContent": result.outputs, "isError": False, "_meta": meta})

    def failure(self, error: LiveError) -> dict[str, Any]:
        """Return the reply of a run that failed: a result, so that a model can read it and ask better."""
        told = error_object(error, self._run_id)["error"]
        message = told["message"] if isinstance(error, InputError) else f"{told['type']}: {told['message']}"
        meta = self._meta | {f"{PREFIX}error": told}
        return self._reply({"content": [{"type": "text", "text": message}], "isError": True, "_meta": meta})

    def _reply(self, result: dict[str, Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": self._id, "result": result | self._type}

    def _note(self, message: str) -> bytes:
        if self._token is None:
            return b""
        self._progress += 1
        params = {"progressToken": self._token, "progress": self._progress, "message": message}
        return sse({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


def sse(message: dict[str, Any]) -> bytes:
    """Return a JSON-RPC message as a server-sent event."""
    return b"event: message\ndata: %b\n\n" % dumps(message)
