"""Parsed chunks to deltas, and to the whole reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from dspy_live.sansio.openai.choice import Choice
from dspy_live.sansio.openai.delta import Delta
from dspy_live.sansio.openai.errors import MalformedReply, StreamCut, failure_of, plain_text

_FIRST_STAYS = ("id", "created", "model")
_NOT_TOP = ("choices", "usage", "object", "error", "obfuscation")


class Assembly:
    """Put a reply of ``n`` choices together from its chunks.

    Attributes:
        chunks: how many chunks with choices came.
        ended: set by whoever sees ``[DONE]``.
        usage: the latest that the stream has reported, ``None`` before.
        choices: by index.
    """

    def __init__(self, n: int) -> None:
        self.chunks = 0
        self.ended = False
        self.usage: dict[str, Any] | None = None
        self.choices: dict[int, Choice] = {}
        self._n = n
        self._top: dict[str, Any] = {}
        self._settled = set(_NOT_TOP)  # keys that no further chunk adds to what stands around the choices
        self._width = 0

    def add(self, chunk: Any, out: list[Delta]) -> None:
        """Add a chunk and append what is new to ``out``. Raises :class:`ProviderFailed`, :class:`MalformedReply`."""
        if not isinstance(chunk, dict):
            raise _malformed("a chunk of the stream is not an object", chunk)
        choices = chunk.get("choices")
        if chunk.get("error") or (not choices and chunk.get("object") == "error"):
            raise failure_of(chunk)
        if len(chunk) != self._width or not choices:
            self._width = len(chunk)
            self._read_top(chunk)
        usage = chunk.get("usage")
        if usage and isinstance(usage, dict):
            self.usage = usage
        if choices:
            if not isinstance(choices, list):
                raise _malformed("the choices of a chunk are not a list", choices)
            self.chunks += 1
            for wire in choices:
                self._choice(wire, chunk, out)

    def writer(self, index: int, kind: str) -> Callable[[str], object]:
        """Return what adds to a choice's text, for whoever reads chunks in another way; it adds to ``chunks``, too."""
        choice = self.choices[index]
        return (choice.text if kind == "text" else choice.reasoning).write

    @property
    def complete(self) -> bool:
        """True when the stream has said so, or every choice has a finish reason."""
        return self.ended or (
            len(self.choices) >= self._n and all(choice.finish_reason for choice in self.choices.values())
        )

    def check(self) -> None:
        """Raise :class:`StreamCut` before the end, :class:`MalformedReply` when there is no choice at it."""
        if not self.complete:
            after = f"after {self.chunks} chunks" if self.chunks else "before its first chunk"
            raise StreamCut(f"the stream ended {after}, without a finish reason or [DONE]")
        if not self.choices:
            raise MalformedReply("the stream ended without any choice")

    def reply(self) -> dict[str, Any]:
        """Return the reply as a ``chat.completion``."""
        self.check()
        return {
            **self._top,
            "object": "chat.completion",
            "choices": [self.choices[index].finished() for index in sorted(self.choices)],
            "usage": self.usage,
        }

    def _choice(self, wire: Any, chunk: dict[str, Any], out: list[Delta]) -> None:
        index = wire.get("index") or 0 if isinstance(wire, dict) else None
        if not isinstance(index, int):
            raise _malformed("a choice of the stream is not an object with a whole number as its index", wire)
        choice = self.choices.get(index)
        if choice is None:
            choice = self.choices[index] = Choice(index)
        delta = wire.get("delta") or wire.get("message")
        if delta:
            if not isinstance(delta, dict):
                raise _malformed("the delta of a choice is not an object", delta)
            choice.take(delta, out)
        logprobs = wire.get("logprobs")
        if logprobs and isinstance(logprobs, dict):
            choice.add_logprobs(logprobs)
        reason = wire.get("finish_reason")
        if reason:
            if reason == "error" and wire.get("error"):
                raise failure_of(wire)
            choice.finish_reason = str(reason)
            self._read_top(chunk)

    def _read_top(self, chunk: dict[str, Any]) -> None:
        """Keep the first id, model and time of creation, and the latest of all else that stands around the choices."""
        top, settled = self._top, self._settled
        if not settled.issuperset(chunk):
            for key, value in chunk.items():
                if value and key not in settled:
                    top[key] = value
                    if key in _FIRST_STAYS:
                        settled.add(key)
        groq = top.get("x_groq")
        if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
            self.usage = groq["usage"]


def _malformed(what: str, value: Any) -> MalformedReply:
    return MalformedReply(f"{what}: {plain_text(orjson.dumps(value, default=str)[:800])[:200]}")
