"""The OpenAI-compatible routes, as a client of OpenAI's sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.server.support import QA, Live, Tape, http, qa, serving, until

from dspy_live.core.call import Call
from dspy_live.core.errors import LMFailed
from dspy_live.core.events import Predicted, Started
from dspy_live.core.schema import Field, Schema


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa()) as server:
        yield server


def body(text: str = "why?", **more: Any) -> dict[str, Any]:
    return {"model": "qa", "messages": [{"role": "user", "content": text}], **more}


def chunks(reply: httpx.Response) -> list[Any]:
    lines = [line[6:] for line in reply.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_models(live: Live) -> None:
    models = http.get(live.url + "/v1/models").json()
    assert [m["id"] for m in models["data"]] == ["qa"]
    assert http.get(live.url + "/v1/models/qa").json()["object"] == "model"
    assert http.get(live.url + "/v1/models/other").status_code == 404


def test_a_whole_completion(live: Live) -> None:
    reply = http.post(live.url + "/v1/chat/completions", json=body(temperature=0.2, seed=7))
    found = reply.json()
    assert found["object"] == "chat.completion"
    assert found["model"] == "qa"
    assert found["id"] == "chatcmpl-" + reply.headers["x-run-id"]
    assert found["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "You asked: why?"}, "finish_reason": "stop"}
    ]
    assert found["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    assert live.service.calls[-1].config == {"temperature": 0.2, "seed": 7}


@pytest.mark.parametrize("usage", [False, True])
def test_a_streamed_completion(live: Live, usage: bool) -> None:
    reply = http.post(
        live.url + "/v1/chat/completions", json=body(stream=True, stream_options={"include_usage": usage})
    )
    found = chunks(reply)
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    end = found.pop() if usage else None
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in found) == "You asked: why?"
    assert [c["choices"][0]["finish_reason"] for c in found] == [None] * (len(found) - 1) + ["stop"]
    assert len({c["id"] for c in found}) == 1
    if end is not None:
        assert end["choices"] == []
        assert end["usage"]["total_tokens"] == 12


def test_content_in_parts(live: Live) -> None:
    parts = [{"type": "text", "text": "wh"}, {"type": "text", "text": "y?"}]
    reply = http.post(
        live.url + "/v1/chat/completions", json={"model": "qa", "messages": [{"role": "user", "content": parts}]}
    )
    assert reply.json()["choices"][0]["message"]["content"] == "You asked: why?"


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hello", "messages"),
        ([{"role": "assistant", "content": "x"}], "messages"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages"),
    ],
)
def test_messages_that_do_not_fit(live: Live, messages: Any, field: str) -> None:
    reply = http.post(live.url + "/v1/chat/completions", json={"model": "qa", "messages": messages})
    assert reply.status_code == 422
    assert reply.json()["error"]["field"] == field


def test_an_unknown_model(live: Live) -> None:
    reply = http.post(live.url + "/v1/chat/completions", json=body() | {"model": "gpt"})
    assert reply.status_code == 404
    assert "'qa'" in reply.json()["error"]["message"]


def test_a_program_of_several_inputs_takes_json_and_a_history_takes_the_turns() -> None:
    history = Field("history", type="dspy.History", json_schema={"type": "object"}, required=False)
    schema = Schema("Chat", (Field("question"), history), QA.outputs)

    with serving(qa(schema=schema)) as live:
        url = live.url + "/v1/chat/completions"
        messages = [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "two"},
        ]
        http.post(url, json={"model": "qa", "messages": messages})
        assert dict(live.service.calls[-1].inputs) == {
            "question": "two",
            "history": {"messages": [{"question": "one", "answer": "1"}]},
        }

    several = Schema("Several", (Field("question"), Field("context")), QA.outputs)
    with serving(qa(schema=several)) as live:
        url = live.url + "/v1/chat/completions"
        assert http.post(url, json=body('{"question": "a", "context": "b"}')).status_code == 200
        assert dict(live.service.calls[-1].inputs) == {"question": "a", "context": "b"}
        reply = http.post(url, json=body("plain words"))
        assert reply.status_code == 422
        assert "'context'" in reply.json()["error"]["message"]


def test_a_failure_in_mid_stream_is_an_error_object() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens("so far")
        await asyncio.sleep(0.01)
        raise LMFailed("the LM is down")

    with serving(qa(script)) as live:
        found = chunks(http.post(live.url + "/v1/chat/completions", json=body(stream=True)))
    assert found[-1]["error"]["code"] == "lm_failed"


def test_outputs_without_text_are_json() -> None:
    schema = Schema("N", QA.inputs, (Field("number", type="int", json_schema={"type": "integer"}),))

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id), Predicted({"number": 7}))

    with serving(qa(script, schema)) as live:
        whole = http.post(live.url + "/v1/chat/completions", json=body()).json()
        streamed = chunks(http.post(live.url + "/v1/chat/completions", json=body(stream=True)))
    assert whole["choices"][0]["message"]["content"] == '{"number":7}'
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in streamed) == '{"number":7}'


def test_leaving_cancels_the_run() -> None:
    async def endless(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens("x " * 100_000, pause=0.002)

    with serving(qa(endless)) as live:
        sock = live.connect()
        sock.sendall(live.request("POST", "/v1/chat/completions", json.dumps(body(stream=True)).encode()))
        while b"chunk" not in sock.recv(65536):
            pass
        live.ends_when(sock.close)
        until(lambda: len(live.app.runs) == 0)
