"""What every chat front end does alike, over a socket: leaving, a slow reader, failures, keys, words taken back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.front_ends.scripted import SAYS, takes_back
from tests.server.support import QA, Live, Tape, http, qa, serving, until

from dspy_live.core.call import Call
from dspy_live.core.errors import LMFailed
from dspy_live.core.events import Predicted, Started, Status, Token
from dspy_live.core.schema import Field, Schema

USER = {"role": "user", "content": "why?"}
FRONTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "qa", "messages": [USER], "stream": True}),
    "responses": ("/v1/responses", {"model": "qa", "input": "why?", "stream": True}),
    "ui": ("/ui/chat", {"id": "c", "messages": [{"role": "user", "parts": [{"type": "text", "text": "why?"}]}]}),
    "agui": ("/agui", {"threadId": "t", "runId": "r", "messages": [USER | {"id": "1"}]}),
    "mcp": (
        "/mcp",
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "qa", "arguments": {"question": "why?"}, "_meta": {"progressToken": 1}},
        },
    ),
}  # fmt: skip
EACH = pytest.mark.parametrize("front", FRONTS)


def post(live: Live, front: str, **headers: str) -> Any:
    path, body = FRONTS[front]
    return http.post(live.url + path, json=body, headers=headers)


def lines(text: str) -> list[Any]:
    found = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in found if line != "[DONE]"]


def text_of(front: str, text: str) -> str:
    """The program's text as a client puts it together; MCP's is in its result."""
    events = lines(text)
    match front:
        case "chat":
            return "".join(event["choices"][0]["delta"].get("content", "") for event in events if event.get("choices"))
        case "responses":
            return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        case "mcp":
            return str(events[-1]["result"]["structuredContent"]["answer"])
        case "ui":
            last = max((i for i, event in enumerate(events) if event["type"] == "reset-step"), default=0)
            return "".join(event["delta"] for event in events[last:] if event["type"] == "text-delta")
        case _:
            last = max((i for i, event in enumerate(events) if event["type"] == "MESSAGES_SNAPSHOT"), default=0)
            return "".join(event["delta"] for event in events[last:] if event["type"] == "TEXT_MESSAGE_CONTENT")


@EACH
def test_no_token_is_lost_or_comes_twice(front: str) -> None:
    words = " ".join(f'wörd{number}\u2028"{number}' for number in range(300))

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(words)
        await tape.push(Predicted({"reasoning": "", "answer": words}))

    with serving(qa(script)) as live:
        assert text_of(front, post(live, front).text) == words


@EACH
def test_leaving_cancels_the_run(front: str) -> None:
    async def endless(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id), Status("at work"))
        await tape.tokens("x " * 100_000, pause=0.001)

    with serving(qa(endless)) as live:
        path, body = FRONTS[front]
        sock = live.connect()
        sock.sendall(live.request("POST", path, json.dumps(body).encode(), accept="text/event-stream"))
        while b"data: " not in sock.recv(65536):
            pass
        live.ends_when(sock.close)
        until(lambda: len(live.app.runs) == 0)
        assert list(live.service.ended.values()) == ["CancelledError"]


@EACH
def test_a_slow_reader_holds_up_its_own_run_and_loses_nothing(front: str) -> None:
    count, piece = 2000, "x" * 4000

    async def flood(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        for number in range(count):
            said = f"{number}:{piece} "
            await tape.push(Status(said) if front == "mcp" else Token(said, "answer", "predict", 1))
            if number % 16 == 0:
                await asyncio.sleep(0)
        whole = "".join(f"{number}:{piece} " for number in range(count))
        await tape.push(Predicted({"reasoning": "", "answer": "done" if front == "mcp" else whole}))

    with serving(qa(flood)) as live:
        path, body = FRONTS[front]
        with live.connect(rcvbuf=65536) as sock:
            sock.sendall(
                live.request("POST", path, json.dumps(body).encode(), accept="text/event-stream", connection="close")
            )
            until(lambda: bool(live.service.tapes))
            tape = live.service.tapes[0]
            live.settled(lambda: tape.pushed, lambda: tape.waits)
            assert tape.pushed < count, "the kernel's buffers took it all: the test shows nothing"
            sock.settimeout(60)
            received = bytearray()
            while some := sock.recv(1 << 20):
                received += some
    whole = unchunked(bytes(received)).decode()
    if front == "mcp":
        told = "".join(note["params"]["message"] for note in lines(whole)[:-1])
    else:
        told = text_of(front, whole)
    assert [int(word.partition(":")[0]) for word in told.split()] == list(range(count))


def unchunked(reply: bytes) -> bytes:
    parts, at = [], reply.index(b"\r\n\r\n") + 4
    while (end := reply.find(b"\r\n", at)) >= 0 and (size := int(reply[at:end], 16)):
        parts.append(reply[end + 2 : end + 2 + size])
        at = end + size + 4
    return b"".join(parts)


@EACH
def test_a_failure_before_the_first_word(front: str) -> None:
    async def script(call: Call, tape: Tape) -> None:
        raise LMFailed("the LM is down; its key is sk-secret-1234567")

    with serving(qa(script)) as live:
        reply = post(live, front)
        assert "sk-secret" not in reply.text
        if front == "mcp":
            assert reply.status_code == 200
            assert reply.json()["result"]["isError"] is True
            assert "lm_failed" in reply.text
        else:
            assert reply.status_code == 502
            assert reply.json()["error"]["code" if "model" in FRONTS[front][1] else "type"] == "lm_failed"


@EACH
def test_a_failure_in_the_middle_is_the_protocols_own(front: str) -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens("so far")
        raise RuntimeError("the password is hunter2")

    with serving(qa(script)) as live:
        reply = post(live, front)
    assert reply.status_code == 200
    assert "hunter2" not in reply.text
    last = lines(reply.text)[-1]
    match front:
        case "chat":
            assert last["error"]["code"] == "program_failed"
        case "responses":
            error = last["response"]["error"]
            assert (last["type"], error["code"], error["type"]) == ("response.failed", "server_error", "program_failed")
            assert [item["status"] for item in last["response"]["output"]] == ["incomplete"]
        case "ui":
            assert last["type"] == "error"
            assert [e["type"] for e in lines(reply.text)].count("text-end") == 1
        case "agui":
            assert (last["type"], last["code"]) == ("RUN_ERROR", "program_failed")
            assert [e["type"] for e in lines(reply.text)].count("TEXT_MESSAGE_END") == 1
        case "mcp":
            assert last["result"]["isError"] is True
            assert last["result"]["_meta"]["dspy-live/error"]["type"] == "program_failed"


@EACH
def test_an_operator_can_stop_a_run(front: str) -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id), Status("at work"))
        await tape.tokens("one", pause=0.001)
        await asyncio.Event().wait()

    with serving(qa(script)) as live:
        path, body = FRONTS[front]
        with http.stream("POST", live.url + path, json=body) as reply:
            run = reply.headers["x-run-id"]
            received = reply.iter_text()
            text = next(received)
            assert http.delete(f"{live.url}/runs/{run}").status_code in (200, 202, 204)
            text += "".join(received)
    last = lines(text)[-1]
    if front == "ui":
        assert last["type"] == "abort"
    elif front == "agui":
        assert last["outcome"] == {"type": "cancelled"}
    else:
        assert "cancelled" in json.dumps(last)


@EACH
def test_a_key_is_asked_for(front: str) -> None:
    with serving(qa(), api_keys={"a": "secret-key-1"}) as live:
        assert post(live, front).status_code == 401
        assert post(live, front, authorization="Bearer secret-key-1").status_code == 200
        assert live.service.calls[0].key == "a"


SCORED = Schema("QA", QA.inputs, (*QA.outputs, Field("score", type="int")))


@EACH
def test_words_are_taken_back_where_a_protocol_can_and_else_the_run_fails(front: str) -> None:
    with serving(qa(takes_back, SCORED)) as live:
        text = post(live, front).text
        if front in ("chat", "responses"):
            assert "stream_broken" in text
            until(lambda: list(live.service.ended.values()) == ["CancelledError"])
        else:
            assert text_of(front, text) == SAYS["answer"]


@EACH
def test_text_that_is_held_comes_once_at_the_end(front: str) -> None:
    with serving(qa(takes_back, SCORED, hold_text=True)) as live:
        text = post(live, front).text
    assert text_of(front, text) == SAYS["answer"]
    assert "reset-step" not in text
    assert "MESSAGES_SNAPSHOT" not in text


def test_the_ui_stream_has_its_version_and_its_program() -> None:
    with serving(qa()) as live:
        path, body = FRONTS["ui"]
        reply = http.post(f"{live.url}/programs/qa{path}", json=body)
        assert reply.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert http.post(f"{live.url}/programs/no{path}", json=body).status_code == 404
        assert reply.text.endswith("data: [DONE]\n\n")


def test_an_answer_that_is_made_anew_is_not_from_the_cache() -> None:
    with serving(qa()) as live:
        path, body = FRONTS["ui"]
        http.post(live.url + path, json=body)
        http.post(live.url + path, json=body | {"trigger": "regenerate-message"})
        assert [call.config for call in live.service.calls] == [{}, {"rollout_id": live.service.calls[1].id}]


@pytest.mark.parametrize(
    ("front", "changes"),
    [
        ("responses", {"input": None}),
        ("responses", {"input": []}),
        ("responses", {"input": [{"role": "assistant", "content": "x"}]}),
        ("responses", {"input": [{"role": "nobody", "content": "x"}]}),
        ("responses", {"input": [{"type": "item_reference", "id": "x"}]}),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]}),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}),
        ("responses", {"instructions": 5}),
        ("responses", {"background": True}),
        ("responses", {"tools": [{"type": "web_search"}]}),
        ("responses", {"text": {"format": {"type": "json_schema", "name": "x"}}}),
        ("responses", {"text": "x"}),
        ("responses", {"store": "yes"}),
        ("responses", {"previous_response_id": "resp_1", "conversation": "c"}),
        ("responses", {"conversation": {"id": ""}}),
        ("responses", {"nonsense": 1}),
        ("responses", {"temperature": "hot"}),
        ("ui", {"messages": []}),
        ("ui", {"messages": [{"role": "user"}]}),
        ("ui", {"messages": [{"role": "robot", "parts": []}]}),
        ("ui", {"messages": [{"role": "user", "parts": [{"type": "text"}]}]}),
        ("ui", {"messages": [{"role": "user", "parts": [{"type": "file", "mediaType": "a/b", "url": "http://x"}]}]}),
        ("ui", {"messages": [{"role": "user", "parts": [{"type": "file", "mediaType": "image/png", "url": "u"}]}]}),
        ("ui", {"config": {"api_base": "http://x"}}),
        ("ui", {"config": "x"}),
        ("agui", {"messages": "x"}),
        ("agui", {"messages": [{"role": "user"}]}),
        ("agui", {"messages": [{"role": "robot", "content": "x"}]}),
        ("agui", {"messages": [{"role": "tool", "content": "x", "toolCallId": "1"}]}),
        ("agui", {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]}),
        ("agui", {"messages": [{"role": "user", "content": [{"type": "video", "source": {}}]}]}),
    ],
)
def test_a_request_that_does_not_fit(front: str, changes: dict[str, Any]) -> None:
    with serving(qa()) as live:
        path, body = FRONTS[front]
        reply = http.post(live.url + path, json=body | changes)
        assert reply.status_code in (400, 422), reply.text
        assert reply.json()["error"]["message"]
        assert not live.service.calls


def test_state_and_context_go_to_inputs_of_their_names() -> None:
    inputs = (Field("question"), Field("state", type="dict", json_schema={"type": "object"}), Field("context"))
    with serving(qa(schema=Schema("S", inputs, QA.outputs))) as live:
        path, body = FRONTS["agui"]
        more = {"state": {"a": 1}, "context": [{"description": "Place", "value": "here"}]}
        reply = http.post(live.url + path, json=body | more)
        assert reply.status_code == 200
        assert "x-ignored" not in reply.headers
        assert dict(live.service.calls[0].inputs) == {
            "question": "why?",
            "state": {"a": 1},
            "context": "Place:\nhere",
        }
