"""A plain, not streamed, reply."""

from __future__ import annotations

import json
from typing import Any, Protocol

import orjson

from dspy_live.sansio.lines import BOM
from dspy_live.sansio.openai.choice import Choice
from dspy_live.sansio.openai.delta import Delta
from dspy_live.sansio.openai.errors import MalformedReply, failure_of, plain_text

_SHOWN = 200


class ReplyParser(Protocol):
    """What :class:`StreamParser` and :class:`PlainParser` have in common."""

    def feed(self, data: bytes) -> list[Delta]: ...
    def finish(self) -> list[Delta]: ...
    def reply(self) -> dict[str, Any]: ...


def parse_reply(body: bytes, *, status: int = 200) -> dict[str, Any]:
    """Return a ``chat.completion`` from its JSON.

    Raises :class:`ProviderFailed` when it is an error object, :class:`MalformedReply`, with the status
    and the first 200 characters, when it is anything else.
    """
    try:
        reply = _loads(body.removeprefix(BOM))
    except (ValueError, RecursionError):
        shown = plain_text(body)[:_SHOWN] or "an empty body"
        raise MalformedReply(
            f"the endpoint answered with status {status} and something other than JSON: {shown}"
        ) from None
    choices = None
    if isinstance(reply, dict):
        if reply.get("error"):
            raise failure_of(reply)
        choices = reply.get("choices")
    if not choices or not isinstance(choices, list):
        shown = plain_text(body)[:_SHOWN]
        raise MalformedReply(f"the endpoint's reply (status {status}) has no choices: {shown}")
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise MalformedReply(f"a choice of the endpoint's reply has no message: {plain_text(body)[:_SHOWN]}")
        if choice.get("finish_reason") == "error" and choice.get("error"):
            raise failure_of(choice)
    whole: dict[str, Any] = reply
    return whole


def _loads(body: bytes) -> Any:
    """Parse JSON; halves of surrogate pairs and bytes that are not UTF-8, which orjson refuses, become U+FFFD."""
    try:
        return orjson.loads(body)
    except ValueError:
        return _whole_characters(json.loads(body.decode("utf-8", "replace")))


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return [_whole_characters(item) for item in value] if isinstance(value, list) else value


def reply_deltas(reply: dict[str, Any]) -> list[Delta]:
    """Return what a stream of this reply would have said: one delta per text and tool call."""
    out: list[Delta] = []
    for number, wire in enumerate(reply["choices"]):
        index = wire.get("index")
        Choice(number if index is None else index).take(wire["message"], out)
    return out


class PlainParser:
    """The parser's shape for a plain reply: collects all, and parses it at the end."""

    def __init__(self, *, status: int = 200) -> None:
        self._status = status
        self._parts: list[bytes] = []
        self._reply: dict[str, Any] | None = None

    def feed(self, data: bytes) -> list[Delta]:
        """Keep the bytes. Returns nothing."""
        self._parts.append(data)
        return []

    def finish(self) -> list[Delta]:
        """Parse; raises as :func:`parse_reply`."""
        body = b"".join(self._parts)
        self._parts.clear()
        self._reply = parse_reply(body, status=self._status)
        return reply_deltas(self._reply)

    def reply(self) -> dict[str, Any]:
        """Return the reply; only after :meth:`finish`."""
        if self._reply is None:
            raise MalformedReply("the reply has not ended yet")
        return self._reply
