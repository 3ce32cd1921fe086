"""The output items of a response: which are open, and the events that begin, fill and end them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_live.core.events import Tool
from dspy_live.server.encoders.json import dumps
from dspy_live.server.errors import redacted

SERVER_LABEL = "program"
"""The server whose tools a program calls, as an ``mcp_call`` item names it."""


class Items:
    """The items of one response, in the order in which they began.

    Args:
        run_id: part of each item's id.
        event: encodes an event of a type with its data.
    """

    def __init__(self, run_id: str, event: Callable[..., bytes]) -> None:
        self._run_id = run_id
        self._event = event
        self._items: list[dict[str, Any]] = []
        self._message: dict[str, Any] | None = None
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._thinking: int | None = None
        self._tools: dict[str, int] = {}
        self._delta = b""

    @property
    def done(self) -> list[dict[str, Any]]:
        """The items; those that are open have no text yet."""
        return self._items

    @property
    def has_message(self) -> bool:
        """True once the program's text has begun."""
        return self._message is not None

    def message(self) -> bytes:
        """Begin the message, where it has not begun."""
        if self._message is not None:
            return b""
        made, at = self._begin("msg", type="message", role="assistant", status="in_progress", content=[])
        item = self._message = self._items[at]
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        made += self._event("response.content_part.added", **self._place(at), content_index=0, part=part)
        place = dumps({"item_id": item["id"], "output_index": at, "content_index": 0, "logprobs": []})[1:-1]
        kind = b"response.output_text.delta"
        head = b'event: %b\ndata: {"type":"%b",%b,' % (kind, kind, place)
        self._delta = head.replace(b"%", b"%%") + b'"sequence_number":%d,"delta":%b}\n\n'
        return made

    def text_delta(self, piece: str) -> bytes:
        """Take a piece of the message; return the event's bytes, with places for its number and its text."""
        self._pieces.append(piece)
        return self._delta

    def reasoning(self, piece: str) -> bytes:
        """Take a piece of reasoning."""
        made = b""
        if self._thinking is None:
            made, self._thinking = self._begin("rs", type="reasoning", status="in_progress", summary=[], content=[])
            part = {"type": "reasoning_text", "text": ""}
            made += self._event(
                "response.content_part.added", **self._place(self._thinking), content_index=0, part=part
            )
        self._thoughts.append(piece)
        place = self._place(self._thinking)
        return made + self._event("response.reasoning_text.delta", **place, content_index=0, delta=piece)

    def end_reasoning(self, status: str = "completed") -> bytes:
        """End the reasoning that is open, if one is."""
        if self._thinking is None:
            return b""
        at, self._thinking = self._thinking, None
        whole, self._thoughts = "".join(self._thoughts), []
        part = {"type": "reasoning_text", "text": whole}
        made = self._event("response.reasoning_text.done", **self._place(at), content_index=0, text=whole)
        made += self._event("response.content_part.done", **self._place(at), content_index=0, part=part)
        return made + self._end(at, status=status, content=[part])

    def tool(self, tool: Tool) -> bytes:
        """Take a tool's call, its result or its error."""
        if tool.stage == "call":
            arguments = dumps(tool.arguments).decode()
            made, at = self._begin(
                "mcp", type="mcp_call", server_label=SERVER_LABEL, name=tool.name, arguments="", status="in_progress"
            )
            self._tools[tool.id] = at
            self._items[at]["arguments"] = arguments
            made += self._event("response.mcp_call.in_progress", **self._place(at))
            return made + self._event("response.mcp_call_arguments.done", **self._place(at), arguments=arguments)
        at_or_none = self._tools.pop(tool.id, None)
        if at_or_none is None:
            return b""
        result = tool.result if isinstance(tool.result, str) else dumps(tool.result).decode()
        if tool.stage == "error":
            error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": redacted(result)}]}
            made = self._event("response.mcp_call.failed", **self._place(at_or_none))
            return made + self._end(at_or_none, status="failed", error=error, output=None)
        made = self._event("response.mcp_call.completed", **self._place(at_or_none))
        return made + self._end(at_or_none, status="completed", output=result, error=None)

    def end_all(self, status: str) -> bytes:
        """End what is open: reasoning, tools, the message, whose status is ``status``."""
        made = self.end_reasoning(status)
        for at in self._tools.values():
            made += self._end(at, status="incomplete")
        self._tools.clear()
        if self._message is None:
            return made
        at = self._items.index(self._message)
        part = {"type": "output_text", "text": "".join(self._pieces), "annotations": [], "logprobs": []}
        place = self._place(at)
        made += self._event("response.output_text.done", **place, content_index=0, text=part["text"], logprobs=[])
        made += self._event("response.content_part.done", **place, content_index=0, part=part)
        return made + self._end(at, status=status, content=[part])

    def _begin(self, prefix: str, **item: Any) -> tuple[bytes, int]:
        at = len(self._items)
        self._items.append({"id": f"{prefix}_{self._run_id}_{at}", **item})
        return self._event("response.output_item.added", output_index=at, item=self._items[at]), at

    def _end(self, at: int, **changes: Any) -> bytes:
        self._items[at].update(changes)
        return self._event("response.output_item.done", output_index=at, item=self._items[at])

    def _place(self, at: int) -> dict[str, Any]:
        return {"item_id": self._items[at]["id"], "output_index": at}
