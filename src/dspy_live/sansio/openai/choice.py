"""One choice of a streamed reply, put together from its chunks."""

from __future__ import annotations

from io import StringIO
from typing import Any

import orjson

from dspy_live.sansio.openai.delta import Delta

_TEXT_KEYS = frozenset({"role", "content", "reasoning_content", "reasoning"})
_DELTA_KEYS = frozenset(
    {"role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "reasoning_details"}
)


class Choice:
    """Collects a choice's deltas; :meth:`finished` makes them one.

    Texts go to buffers and not to lists of pieces: five characters a token cost 1 byte each and not 13 (Python 3.11
    joins them at the 100,000th token only). What few replies have is made when it comes.
    """

    __slots__ = ("_half", "_others", "_reasoning", "finish_reason", "index", "text", "texted")

    def __init__(self, index: int) -> None:
        self.index = index
        self.text = StringIO()
        self.texted = False
        self.finish_reason: str | None = None
        self._reasoning: StringIO | None = None
        self._others: _Others | None = None
        self._half = ""  # the first half of a surrogate pair that was cut between two chunks

    @property
    def reasoning(self) -> StringIO:
        """The buffer of what the model thinks."""
        if self._reasoning is None:
            self._reasoning = StringIO()
        return self._reasoning

    @property
    def others(self) -> _Others:
        """What it has beside its two texts."""
        if self._others is None:
            self._others = _Others()
        return self._others

    def take(self, delta: dict[str, Any], out: list[Delta]) -> None:
        """Add a chunk's ``delta`` (or a reply's ``message``) and append what is new to ``out``."""
        content = delta.get("content")
        if content is not None:
            self._content(content, out)
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            self._add("reasoning", self.reasoning, thought, out)
        if not _TEXT_KEYS.issuperset(delta):
            self._rest(delta, out)

    def add_logprobs(self, logprobs: dict[str, Any]) -> None:
        """Append a chunk's log probabilities."""
        for name, items in logprobs.items():
            if isinstance(items, list):
                self.others.logprobs.setdefault(name, []).extend(items)

    def finished(self) -> dict[str, Any]:
        """Return the choice as a plain (not streamed) reply has it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text.getvalue() if self.texted else None}
        if self._reasoning is not None and self._reasoning.tell():
            message["reasoning_content"] = self._reasoning.getvalue()
        choice = {"index": self.index, "message": message, "finish_reason": self.finish_reason}
        if self._others is not None:
            self._others.finish(choice, message)
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
            self.others.refusal.append(refusal)
        calls = delta.get("tool_calls")
        for fragment in calls if isinstance(calls, list) else ():
            if isinstance(fragment, dict):
                self._tool(fragment, out)
        function = delta.get("function_call")
        if isinstance(function, dict):
            self.others.function = self.others.function or _ToolCall()
            self.others.function.add({"function": function})
        for key in delta.keys() - _DELTA_KEYS:
            if (value := delta[key]) is not None:
                self.others.add(key, value)

    def _tool(self, fragment: dict[str, Any], out: list[Delta]) -> None:
        slot = self.others.slot(fragment)
        call = self.others.calls[slot]
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


class _Others:
    """What few choices have."""

    __slots__ = ("_extra", "_slots", "calls", "function", "logprobs", "refusal")

    def __init__(self) -> None:
        self.refusal: list[str] = []
        self.calls: list[_ToolCall] = []
        self.function: _ToolCall | None = None
        self.logprobs: dict[str, list[Any]] = {}
        self._slots: dict[int, int] = {}  # the wire's index to ours
        self._extra: dict[str, Any] = {}

    def add(self, key: str, value: Any) -> None:
        """Add what a delta has under a key that we don't know."""
        old = self._extra.get(key)
        if isinstance(value, list) and isinstance(old, list):
            old.extend(value)
        else:
            self._extra[key] = value

    def finish(self, choice: dict[str, Any], message: dict[str, Any]) -> None:
        """Put all of it into a plain reply's choice and the message in it."""
        if self.calls:
            message["tool_calls"] = [call.finished() for call in self.calls]
        if self.function is not None:
            message["function_call"] = self.function.finished()["function"]
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        message.update(self._extra)
        if self.logprobs:
            choice["logprobs"] = self.logprobs

    def slot(self, fragment: dict[str, Any]) -> int:
        """Which call a fragment belongs to: by its index; some servers send none, or 0 for all with different ids."""
        wire, name = fragment.get("index"), _string(fragment.get("id"))
        if not isinstance(wire, int):
            function = fragment.get("function")
            if self.calls and not name and not (isinstance(function, dict) and function.get("name")):
                return len(self.calls) - 1
            wire = -1 - len(self.calls)
        slot = self._slots.get(wire)
        if slot is None or (name and self.calls[slot].id not in ("", name)):
            slot = self._slots[wire] = len(self.calls)
            self.calls.append(_ToolCall())
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
