"""Replies without text, with parts of text, or with halves of characters give what stock DSPy 3.4 makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from tests.programs.conftest import MODEL

from dspy_live import LM, asyncify
from dspy_live.core.events import Completion

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


class OneMessage:
    """An endpoint on a socket that answers everything with one message."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self.url = ""

    def body(self) -> bytes:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **self.message}}
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        return json.dumps({"id": "x", "created": 1, "model": "m", "choices": [choice], "usage": usage}).encode()

    def lm(self, make: Any, **message: Any) -> Any:
        self.message = message
        return make(MODEL, api_base=self.url, api_key="x", cache=False, num_retries=0)


@pytest.fixture(scope="module")
def served() -> Iterator[OneMessage]:
    endpoint = OneMessage()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = endpoint.body()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
        Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint
        server.shutdown()


@pytest.mark.parametrize(
    ("message", "outputs"),
    [
        ({"content": None}, [""]),
        ({}, [""]),
        ({"content": None, "tool_calls": [], "refusal": ""}, [""]),
        ({"content": None, "refusal": "I will not."}, [None]),
        ({"content": None, "reasoning_content": "Hm."}, [{"text": None, "reasoning_content": "Hm."}]),
        ({"content": None, "reasoning": "Hm."}, [{"text": None, "reasoning_content": "Hm."}]),
        ({"content": "Paris", "reasoning": "Hm."}, [{"text": "Paris", "reasoning_content": "Hm."}]),
        ({"content": None, "tool_calls": [CALL]}, [{"text": None, "tool_calls": [CALL]}]),
        ({"content": [{"type": "text", "text": "Pa"}, {"type": "text", "text": "ris"}]}, ["Paris"]),
        ({"content": []}, [""]),
        ({"content": 5}, [""]),
    ],
    ids=str,
)
def test_outputs_and_history_are_those_of_dspy(served: OneMessage, message: dict[str, Any], outputs: list[Any]) -> None:
    for make in (dspy.LM, LM):
        lm = served.lm(make, **message)
        assert lm("What is Rust?") == outputs, make
        assert lm.history[-1]["outputs"] == outputs, make


def test_half_of_a_character_in_a_reply_is_replaced_as_in_a_stream(served: OneMessage) -> None:
    lm = served.lm(LM, content="[[ ## answer ## ]]\nPa\ud800ris \N{GRINNING FACE}")
    with dspy.context(lm=lm):
        answer = dspy.Predict("question -> answer")(question="?").answer
    assert answer == "Pa\ufffdris \N{GRINNING FACE}"


async def test_reply_without_text_from_an_endpoint_of_ones_own() -> None:
    async def silent(call: Any, sink: Any) -> Completion:
        return Completion({"choices": [{"index": 0, "message": {"role": "assistant", "content": None}}]})

    lm = LM(MODEL, api_key="x", endpoint=silent, cache=False)
    assert await lm.acall("What is Rust?") == [""]
    assert await lm.acall("What is Rust?", logprobs=True) == [{"text": "", "logprobs": None}]
    with dspy.context(lm=lm), pytest.raises(AdapterParseError, match="empty or null response"):
        await asyncify(dspy.Predict("question -> answer"))(question="?")
