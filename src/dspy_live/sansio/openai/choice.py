"""One choice of a streamed reply, put together from its chunks."""

from __future__ import annotations

from io import StringIO
from typing import Any

import orjson

from dspy_live.sansio.openai.delta import Delta

_DELTA_KEYS = frozenset(
    {"role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "reasoning_details"}
)


class Choice:
    """Collects a choice's deltas; :meth:`finished` makes them one.

    Texts go to buffers and not to lists of pieces: five characters a token cost 1 byte each and not 13 (Python 3.11
    joins them at the 100,000th token only).
    """

    __slots__ = ("_calls", "_extra", "_function", "_half", "_logprobs", "_refusal", "_slots", "finish_reason", "index",
                 "reasoning", "text", "texted")  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.text = StringIO()
        self.texted = False
        self.reasoning = StringIO()
        self.finish_reason: str | None = None
        self._refusal: list[str] = []
        self._calls: list[_ToolCall] = []
        self._slots: dict[int, int] = {}  # the wire's index to ours
        self._function: _ToolCall | None = None
        self._logprobs: dict[str, list[Any]] = {}
        self._extra: dict[str, Any] = {}
        self._half = ""  # the first half of a surrogate pair that was cut between two chunks

    def take(self, delta: dict[str, Any], out: list[Delta]) -> None:
        """Add a chunk's ``delta`` (or a reply's ``message``) and append what is new to ``out``."""
        content = delta.get("content")
        if content is not None:
            self._content(content, out)
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            self._add("reasoning", self.reasoning, thought, out)
        if len(delta) > 1 or (content is None and thought is None):
            self._rest(delta, out)

    def add_logprobs(self, logprobs: dict[str, Any]) -> None:
        """Append a chunk's log probabilities."""
        for name, items in logprobs.items():
            if isinstance(items, list):
                self._logprobs.setdefault(name, []).extend(items)

    def finished(self) -> dict[str, Any]:
        """Return the choice as a plain (not streamed) reply has it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text.getvalue() if self.texted else None}
        if self.reasoning.tell():
            message["reasoning_content"] = self.reasoning.getvalue()
        if self._calls:
            message["tool_calls"] = [call.finished() for call in self._calls]
        if self._function is not None:
            message["function_call"] = self._function.finished()["function"]
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        message.update(self._extra)
        choice = {"index": self.index, "message": message, "finish_reason": self.finish_reason}
        if self._logprobs:
            choice["logprobs"] = self._logprobs
        return choice

    def _content(self, content: Any, out: list[Delta]) -> None:
        if isinstance(content, str):
            self.texted = True
            if content:
                self._add("text", self.text, content, out)
        elif isinstance(content, list):  # Mistral sends parts
            for part in content:
                if isinstance(part, dict):
                    self._part(part, out)

    def _part(self, part: dict[str, Any], out: list[Delta]) -> None:
        inner = part.get("thinking")
        if isinstance(inner, list):
            inner = "".join(p.get("text") or "" for p in inner if isinstance(p, dict))
        if isinstance(inner, str) and inner:
            self._add("reasoning", self.reasoning, inner, out)
        elif isinstance(part.get("text"), str):
            self._content(part["text"], out)

    def _add(self, kind: Any, to: StringIO, text: str, out: list[Delta]) -> None:
        if self._half or "\ud800" <= text[-1] <= "\udfff":
            text = self._paired(text)
            if not text:
                return
        to.write(text)
        out.append(Delta(kind, text, self.index))

    def _paired(self, text: str) -> str:
        """Put halves of surrogate pairs together: servers written in JavaScript may cut between them."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _rest(self, delta: dict[str, Any], out: list[Delta]) -> None:
        refusal = delta.get("refusal")
        if isinstance(refusal, str):
            self._refusal.append(refusal)
        calls = delta.get("tool_calls")
        for fragment in calls if isinstance(calls, list) else ():
            if isinstance(fragment, dict):
                self._tool(fragment, out)
        function = delta.get("function_call")
        if isinstance(function, dict):
            self._function = self._function or _ToolCall()
            self._function.add({"function": function})
        for key in delta.keys() - _DELTA_KEYS:
            value, old = delta[key], self._extra.get(key)
            if isinstance(value, list) and isinstance(old, list):
                old.extend(value)
            elif value is not None:
                self._extra[key] = value

    def _tool(self, fragment: dict[str, Any], out: list[Delta]) -> None:
        slot = self._slot(fragment)
        call = self._calls[slot]
        known_name = "".join(call.name)
        arguments = call.add(fragment)
        name = "".join(call.name)
        out.append(
            Delta(
                "tool",
                arguments,
                self.index,
                slot,
                call.id if fragment.get("id") else "",
                name if name != known_name else "",
            )
        )

    def _slot(self, fragment: dict[str, Any]) -> int:
        """Which call a fragment belongs to: by its index; some servers send none, or 0 for all with different ids."""
        wire, name = fragment.get("index"), _string(fragment.get("id"))
        if not isinstance(wire, int):
            function = fragment.get("function")
            if self._calls and not name and not (isinstance(function, dict) and function.get("name")):
                return len(self._calls) - 1
            wire = -1 - len(self._calls)
        slot = self._slots.get(wire)
        if slot is None or (name and self._calls[slot].id not in ("", name)):
            slot = self._slots[wire] = len(self._calls)
            self._calls.append(_ToolCall())
        return slot


class _ToolCall:
    __slots__ = ("_arguments", "_extra", "id", "name", "type")

    def __init__(self) -> None:
        self.id = ""
        self.type = "function"
        self.name: list[str] = []
        self._arguments: list[str] = []
        self._extra: dict[str, Any] = {}

    def add(self, fragment: dict[str, Any]) -> str:
        """Add a fragment and return its piece of the arguments."""
        self.id = _string(fragment.get("id")) or self.id
        self.type = _string(fragment.get("type")) or self.type
        for key in fragment.keys() - {"index", "id", "type", "function"}:
            self._extra[key] = fragment[key]
        function = fragment.get("function")
        if not isinstance(function, dict):
            return ""
        name = function.get("name")
        # Some servers repeat the whole name in each fragment.
        if isinstance(name, str) and name and name != "".join(self.name):
            self.name.append(name)
        arguments = function.get("arguments")
        if isinstance(arguments, (dict, list)):
            arguments = orjson.dumps(arguments).decode()
        if not isinstance(arguments, str):
            return ""
        self._arguments.append(arguments)
        return arguments

    def finished(self) -> dict[str, Any]:
        function = {"name": "".join(self.name), "arguments": "".join(self._arguments)}
        return {"id": self.id, "type": self.type, "function": function, **self._extra}


def _string(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
