"""POST /predict/stream over a real socket: what is sent, when it ends, what a reader can do to it."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import httpx
import pytest
from tests.server.support import Tape, answer, http, qa, serving, sse, until
from tests.support.until import BOUND

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, LMFailed, RateLimited, Stop
from dspy_live.core.events import (
    Custom,
    Partial,
    Predicted,
    Reasoning,
    Restart,
    Started,
    Status,
    Token,
    Tool,
)


def test_events_are_numbered_under_the_run_and_end_in_done() -> None:
    with serving(qa()) as live:
        reply = http.post(live.url + "/predict/stream", json={"question": "why?"})
    events = sse(reply.text)
    run = reply.headers["x-run-id"]
    names = [name for name, _, _ in events]
    assert names == ["started", *["token"] * 5, "usage", "prediction", "done"]
    assert [ident for _, ident, _ in events] == [f"{run}:{i}" for i in range(1, len(events) + 1)]
    assert "".join(d["text"] for n, _, d in events if n == "token" and d["field"] == "answer") == "You asked: why?"
    assert events[1][2] == {"field": "reasoning", "text": "I ", "predictor": "predict", "lm_call": 1}
    assert events[2][2]["last"] is True
    assert events[-2][2]["outputs"] == {"reasoning": "I think.", "answer": "You asked: why?"}
    assert events[-2][2]["run"]["usage"]["total_tokens"] == 12
    assert events[-1][2] == "[DONE]"


def test_every_kind_of_event_has_its_name_and_data() -> None:
    odd = 'line\nbreak \u2028 \U0001f600 \ud800 "quoted" \\'

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(
            Started(call.id, "QA"),
            Status("thinking", "rag", "processing"),
            Token(odd, "answer", "rag.answer", 1),
            Partial([1, 2], "numbers", "rag.answer", 1),
            Restart("rag.answer", 1, "retry", ("answer",)),
            Reasoning("hm", "rag.answer", 1),
            Tool("search", "call", "t1", {"q": "x"}),
            Tool("search", "result", "t1", result={"hits": {1, 2}}, duration_ms=1.5),
            Custom("progress", {"done": 0.5}),
            Predicted({"answer": odd, "bytes": b"\x00", "object": object, "nan": float("nan"), "big": 1 << 80}),
        )

    with serving(qa(script)) as live:
        events = sse(http.post(live.url + "/predict/stream", json={"question": "x"}).text)
    by_name = {name: data for name, _, data in events}
    assert [n for n, _, _ in events] == [
        "started", "status", "token", "partial", "restart", "reasoning", "tool", "tool", "custom", "prediction", "done",
    ]  # fmt: skip
    assert by_name["status"] == {"message": "thinking", "module": "rag", "stage": "processing"}
    assert by_name["token"]["text"] == odd
    assert by_name["partial"]["value"] == [1, 2]
    assert by_name["restart"] == {"predictor": "rag.answer", "lm_call": 1, "reason": "retry", "fields": ["answer"]}
    assert events[6][2] == {"name": "search", "stage": "call", "id": "t1", "module": "", "arguments": {"q": "x"}}
    assert by_name["tool"]["result"] == {"hits": [1, 2]}
    assert by_name["custom"] == {"name": "progress", "data": {"done": 0.5}}
    assert by_name["prediction"]["outputs"]["answer"] == odd


def test_a_failure_before_the_first_event_is_an_http_error() -> None:
    async def script(call: Call, tape: Tape) -> None:
        raise RateLimited("the LM's provider is over its limit", retry_after=7.2)

    with serving(qa(script)) as live:
        reply = http.post(live.url + "/predict/stream", json={"question": "x"})
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "8"
    error = reply.json()["error"]
    assert error["type"] == "rate_limited"
    assert error["run_id"] == reply.headers["x-run-id"]


@pytest.mark.parametrize(
    ("failure", "kind", "shown"),
    [
        (LMFailed("the LM answered 500"), "lm_failed", "the LM answered 500"),
        (ValueError("secret sk-123456789"), "program_failed", "log"),
        (Stop(Cancelled("stopped by an operator")), "cancelled", "stopped by an operator"),
    ],
)
def test_a_failure_in_mid_stream_is_one_error_event(failure: BaseException, kind: str, shown: str) -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens("so far")
        await asyncio.sleep(0.01)
        raise failure

    with serving(qa(script)) as live:
        reply = http.post(live.url + "/predict/stream", json={"question": "x"})
    events = sse(reply.text)
    assert reply.status_code == 200
    assert [n for n, _, _ in events] == ["started", "token", "token", "error", "done"]
    error = events[3][2]["error"]
    assert error["type"] == kind
    assert shown in error["message"]
    assert error["run_id"] == reply.headers["x-run-id"]
    assert "sk-123" not in reply.text


async def endless(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    while True:
        await tape.push(Token("word ", "answer", "predict", 1))
        await asyncio.sleep(0.002)


def test_the_run_is_cancelled_when_the_client_leaves() -> None:
    with serving(qa(endless)) as live:
        sock = live.connect()
        sock.sendall(live.request("POST", "/predict/stream", b'{"question":"x"}'))
        received = b""
        while received.count(b"event: token") < 5:
            received += sock.recv(65536)
        live.ends_when(sock.close)
        assert list(live.service.ended.values()) == ["CancelledError"]
        until(lambda: len(live.app.runs) == 0)


def test_a_reader_that_stops_makes_the_run_wait_and_misses_nothing() -> None:
    words = 30_000
    text = "x" * 100

    async def flood(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        for i in range(words):
            await tape.push(Token(f"{i}:{text} ", "answer", "predict", 1))
            if i % 16 == 0:
                await asyncio.sleep(0)
        await tape.push(Predicted({"answer": "…"}))

    with serving(qa(flood)) as live:
        sock = live.connect(rcvbuf=8192)
        sock.sendall(live.request("POST", "/predict/stream", b'{"question":"x"}'))
        until(lambda: bool(live.service.tapes))
        tape = live.service.tapes[0]
        live.settled(lambda: tape.pushed, lambda: tape.waits)
        assert tape.pushed < words, "the kernel's buffers took it all: the test shows nothing"
        received = bytearray()
        while b"[DONE]" not in received[-200:]:
            received += sock.recv(1 << 20)
        sock.close()
    body = unchunked(bytes(received).partition(b"\r\n\r\n")[2])
    numbers = [int(d["text"].partition(":")[0]) for n, _, d in sse(body.decode()) if n == "token"]
    assert numbers == list(range(words))


def test_a_client_that_reads_nothing_and_leaves_frees_the_run() -> None:
    async def flood(call: Call, tape: Tape) -> None:
        while True:
            await tape.push(Token("x" * 1000, "answer", "predict", 1))

    with serving(qa(flood)) as live:
        sock = live.connect(rcvbuf=8192)
        sock.sendall(live.request("POST", "/predict/stream", b'{"question":"x"}'))
        until(lambda: bool(live.service.tapes))
        tape = live.service.tapes[0]
        live.settled(lambda: tape.pushed, lambda: tape.waits)
        sock.close()
        until(lambda: len(live.app.runs) == 0)
        assert list(live.service.ended.values()) == ["CancelledError"]


def test_a_silent_stream_has_heartbeats_even_before_the_first_event() -> None:
    may_answer: list[asyncio.Event] = []

    async def script(call: Call, tape: Tape) -> None:
        may_answer.append(asyncio.Event())
        await may_answer[0].wait()
        await answer(call, tape)

    text = ""
    with (
        serving(qa(script), heartbeat=0.03) as live,
        http.stream("POST", live.url + "/predict/stream", json={"question": "x"}) as reply,
    ):
        for piece in reply.iter_text():
            text += piece
            if text.count("keep-alive") >= 2:
                live.loop.call_soon_threadsafe(may_answer[0].set)
    assert text.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert sse(text)[0][0] == "started"


def test_many_streams_at_once_keep_apart() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens(" ".join([call.inputs["question"]] * 20), pause=0.001)
        await tape.push(Predicted({"answer": ""}))

    async def ask(client: httpx.AsyncClient, url: str, word: str) -> str:
        reply = await client.post(url + "/predict/stream", json={"question": word})
        return "".join(d["text"] for n, _, d in sse(reply.text) if n == "token")

    async def all_of_them(url: str) -> list[str]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(limits=limits, timeout=BOUND) as client:
            return await asyncio.gather(*(ask(client, url, f"w{i}") for i in range(60)))

    with serving(qa(script)) as live:
        texts = asyncio.run(all_of_them(live.url))
    assert texts == [" ".join([f"w{i}"] * 20) for i in range(60)]


def unchunked(data: bytes) -> bytes:
    parts, at = [], 0
    while (end := data.find(b"\r\n", at)) >= 0 and (size := int(data[at:end], 16)):
        parts.append(data[end + 2 : end + 2 + size])
        at = end + size + 4
    return b"".join(parts)


def test_a_half_sent_request_costs_no_run() -> None:
    with serving(qa()) as live:
        sock = live.connect()
        sock.sendall(live.request("POST", "/predict/stream", b'{"question":"x"}')[:-3])
        time.sleep(0.03)
        sock.shutdown(socket.SHUT_WR)
        sock.close()
        time.sleep(0.03)
        assert live.service.calls == []
        assert json.loads(http.get(live.url + "/stats").text)["started"] == 0
