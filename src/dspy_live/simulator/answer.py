"""The simulated LM's answers: a request's body in, the text that a well-behaved model would send out.

An answer depends on nothing but the seed, the request and its variation: the same request with the
same seed is answered by the same text, streamed or not. No clock, no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import Random
from typing import Any

import orjson

from dspy_live.simulator.prompt import Wanted, Wish, question, recognise
from dspy_live.simulator.prose import Prose, blocks, keywords
from dspy_live.simulator.tokens import pieces
from dspy_live.simulator.toolplay import ToolCall, code, listed_calls, native_calls, next_step
from dspy_live.simulator.values import Values

_SEEDED = ("messages", "tools", "tool_choice", "response_format", "model", "seed", "temperature")
"""The parts of a request that decide its answer."""


@dataclass(slots=True)
class Reply:
    """One completion. ``tokens`` can be gone through once and is made as it is read, however long."""

    tokens: Iterator[str]
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: Iterator[str] = field(default_factory=lambda: iter(()))

    @property
    def finish_reason(self) -> str:
        """The ``finish_reason`` of a completion that nothing cuts."""
        return "tool_calls" if self.tool_calls else "stop"


def answer(
    body: Mapping[str, Any], *, seed: int = 0, length: int | None = None, variation: int = 0, index: int = 0
) -> str:
    """The whole text of one completion; empty when the answer is a tool call.

    Args:
        body: an OpenAI chat-completions request.
        seed: another seed gives other answers.
        length: tokens of the last text field, exactly; by default some whole sentences, by the seed.
        variation: the how-manieth try at the same request, for models that are sampled.
        index: which of the ``n`` completions.
    """
    return "".join(reply(body, seed=seed, length=length, variation=variation, index=index).tokens)


def reply(
    body: Mapping[str, Any],
    *,
    seed: int = 0,
    length: int | None = None,
    variation: int = 0,
    index: int = 0,
    reasoning: int = 0,
    size: int | None = None,
    fault: str | None = None,
) -> Reply:
    """The same as :func:`answer`, token by token and with tool calls.

    Args:
        body, seed, length, variation, index: as there.
        reasoning: tokens of the model's own reasoning channel.
        size: characters of the last text field, in place of ``length``: for replies of many megabytes.
        fault: ``"wrong_format"`` answers with prose and no format, ``"missing_field"`` leaves the last
            field out, ``"empty"`` says nothing. Others are no business of this function.

    ``max_tokens`` is not looked at here: who serves the reply cuts it.
    """
    rng = Random(_digest(body, seed, variation, index))
    prose = Prose(rng, keywords(question(body)))
    values = Values(rng, prose)
    wanted = recognise(body)
    thought = prose.tokens(reasoning) if reasoning > 0 else iter(())
    calls = native_calls(body, seed, rng, values)
    if calls:
        return Reply(iter(()), calls, thought)
    if fault == "empty":
        return Reply(iter(()), (), thought)

    def tell(main: bool) -> Iterator[str]:
        if main and size is not None:
            return blocks(size)
        if length is None:
            return prose.about(rng.randint(16, 48) if main else rng.randint(8, 24))
        return prose.tokens(length if main else min(max(8, length // 2), 40))

    if wanted.format == "text" or not wanted.fields or fault == "wrong_format":
        return Reply(tell(True), (), thought)
    if fault == "missing_field":
        wanted = replace(wanted, fields=wanted.fields[:-1])
    return Reply(_Writer(body, wanted, seed, values, tell).tokens(), (), thought)


def _digest(body: Mapping[str, Any], seed: int, variation: int, index: int) -> int:
    key = [seed, variation, index, *(body.get(name) for name in _SEEDED)]
    data = orjson.dumps(key, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return int.from_bytes(blake2b(data, digest_size=8).digest())


class _Writer:
    """Writes one answer's fields in the format that the prompt asks for."""

    def __init__(
        self, body: Mapping[str, Any], wanted: Wanted, seed: int, values: Values, tell: Callable[[bool], Iterator[str]]
    ) -> None:
        self._wanted = wanted
        self._values = values
        self._tell = tell
        self._last = next((wish.name for wish in reversed(wanted.fields) if wish.is_text), None)
        self._given = self._played(body, seed)

    def _played(self, body: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The fields whose values are not free: ReAct's next tool, tool calls, code."""
        names = {wish.name for wish in self._wanted.fields}
        given: dict[str, Any] = {}
        if {"next_tool_name", "next_tool_args"} <= names:
            tool, arguments = next_step(self._wanted, body, seed, self._values)
            given |= {"next_tool_name": tool, "next_tool_args": arguments}
        for wish in self._wanted.fields:
            if "ToolCalls" in (wish.schema.get("x-unknown"), str(wish.schema.get("$ref", "")).rsplit("/", 1)[-1]):
                given[wish.name] = listed_calls(self._wanted, body, seed, self._values)
            elif str(wish.schema.get("x-unknown", "")).startswith("Code") or wish.name in ("code", "generated_code"):
                given[wish.name] = code(body, self._values)
        return given

    def tokens(self) -> Iterator[str]:
        """The answer's tokens."""
        write = {"chat": self._chat, "json": self._json, "xml": self._xml}[self._wanted.format]
        return write()

    def _text(self, wish: Wish) -> Iterator[str]:
        return self._tell(wish.name == self._last)

    def _value(self, wish: Wish) -> Any:
        if wish.name in self._given:
            return self._given[wish.name]
        return self._values.make(wish.schema, wish.name)

    def _chat(self) -> Iterator[str]:
        for wish in self._wanted.fields:
            yield from pieces(f"[[ ## {wish.name} ## ]]\n")
            if wish.is_text and wish.name not in self._given:
                yield from self._text(wish)
            else:
                yield from pieces(_demo_text(self._value(wish)))
            yield "\n\n"
        yield from pieces("[[ ## completed ## ]]")

    def _json(self) -> Iterator[str]:
        start = "{\n  "
        for wish in self._wanted.fields:
            yield from pieces(f"{start}{json.dumps(wish.name)}: ")
            if wish.is_text and wish.name not in self._given:
                yield '"'
                for token in self._text(wish):
                    yield json.dumps(token, ensure_ascii=False)[1:-1]
                yield '"'
            else:
                yield from pieces(json.dumps(self._value(wish), ensure_ascii=False))
            start = ",\n  "
        yield "\n}"

    def _xml(self) -> Iterator[str]:
        separator = ""
        for wish in self._wanted.fields:
            yield from pieces(f"{separator}<{wish.name}>")
            if wish.is_text and wish.name not in self._given:
                yield "\n"
                for token in self._text(wish):
                    yield _xml_text(token)
                yield "\n"
            else:
                yield from pieces(self._xml_body(wish))
            yield from pieces(f"</{wish.name}>")
            separator = "\n\n"

    def _xml_body(self, wish: Wish) -> str:
        """A mapping of anything is written as JSON: nested tags would turn its numbers into texts."""
        value = self._value(wish)
        if isinstance(value, dict) and wish.name in self._given:
            return _xml_text(json.dumps(value, ensure_ascii=False))
        return _xml_value(value)


def _demo_text(value: Any) -> str:
    """Return a value as it stands in ChatAdapter's demos: texts and scalars plain, the rest as JSON."""
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _xml_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _xml_value(value: Any) -> str:
    if isinstance(value, list):
        return "".join(f"<item>{_xml_value(item)}</item>" for item in value)
    if isinstance(value, dict):
        return "".join(_xml_entry(str(key), item) for key, item in value.items())
    return "" if value is None else _xml_text(str(value))


def _xml_entry(key: str, value: Any) -> str:
    if key.isidentifier():
        return f"<{key}>{_xml_value(value)}</{key}>"
    quoted = _xml_text(key).replace('"', "&quot;")
    return f'<entry key="{quoted}">{_xml_value(value)}</entry>'
