"""OpenAI's chat completions, whole and in chunks (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from dspy_live.core.errors import LiveError
from dspy_live.server.encoders.frame_loan import ContentLoan
from dspy_live.server.encoders.json import dumps, text
from dspy_live.server.errors import chat_error_object
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.transport.exchange import Exchange


class ChatEncoder:
    """Encodes one run as a chat completion of the model ``model``; ``ignored`` is added to what OpenAI has."""

    def __init__(self, run_id: str, model: str, ignored: Sequence[str] = ()) -> None:
        self._id = f"chatcmpl-{run_id}"
        self._run_id = run_id
        self._model = model
        self._ignored = {"ignored": list(ignored)} if ignored else {}
        self._created = int(time.time())
        head = dumps(self._head("chat.completion.chunk"))[:-1]
        self._before = b"data: " + head + b',"choices":[{"index":0,"delta":{"content":'
        self._after = b'},"finish_reason":null}]}\n\n'

    def opening(self) -> bytes:
        """Return the first chunk, which names the role."""
        return self._chunk([_choice({"role": "assistant", "content": ""}, None)], **self._ignored)

    def content(self, piece: str) -> bytes:
        """Return the chunk of a piece of text."""
        return self._before + text(piece) + self._after

    def loan(self, exchange: Exchange | None, totals: RunTotals) -> ContentLoan | None:
        """Return the loan of ``exchange`` for chunks of text; ``None`` where the chunks don't go to it as they are."""
        return None if exchange is None else ContentLoan(exchange, totals, self._before, self._after)

    def closing(self, totals: RunTotals, *, with_usage: bool) -> bytes:
        """Return what ends the stream, with the chunk that reports usage where that is asked for."""
        end = self._chunk([_choice({}, finish_reason(totals))])
        if with_usage:
            end += self._chunk([], usage=usage(totals))
        return end + b"data: [DONE]\n\n"

    def error(self, error: LiveError) -> bytes:
        """Return what ends a stream that failed, as OpenAI's own servers do it."""
        return b"data: " + dumps(chat_error_object(error, self._run_id)) + b"\n\ndata: [DONE]\n\n"

    def whole(self, choices: Iterable[tuple[str, RunTotals]], totals: RunTotals) -> bytes:
        """Return the completion of a request that does not stream: the content and the totals of each choice."""
        made = [
            {"index": i, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason(own)}
            for i, (content, own) in enumerate(choices)
        ]
        return dumps(self._head("chat.completion") | {"choices": made, "usage": usage(totals)} | self._ignored)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + dumps(self._head("chat.completion.chunk") | {"choices": choices} | more) + b"\n\n"


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def finish_reason(totals: RunTotals) -> str:
    """Return ``"length"`` where the limit of tokens has cut a reply of the LM, else ``"stop"``."""
    return "length" if totals.truncated else "stop"


def usage(totals: RunTotals) -> dict[str, Any]:
    """Return OpenAI's usage object of a run."""
    sums = totals.usage()
    return {name: sums[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
