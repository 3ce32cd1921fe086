"""Clients of all manners while their stream is spliced."""

from __future__ import annotations

import asyncio
import contextvars
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random
from typing import Any

import dspy
import httpx
import pytest
from tests.runtime.http.certificates import Authority
from tests.server import support
from tests.server.splice_lm import (
    SIGNATURE,
    Answerer,
    ScriptedLM,
    compiled,
    plain_loops,
    served,
    served_by,
    splicer,
    steps_of,
)
from tests.server.support import Live, until
from tests.server.test_splice import pieces, read, reply, stream
from tests.support.until import BOUND

import dspy_live

TEXT = reply("chat", "Because.", "word " * 80)
STEPS = steps_of(pieces(Random(4), TEXT))
ASK = json.dumps({"question": "why?"}).encode()


def ask(live: Live, **headers: str) -> bytes:
    return live.request("POST", "/predict/stream", ASK, content_type="application/json", **headers)


class Holding(ScriptedLM):
    """Stops in the middle of its words until it is told to go on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        super().__init__([*STEPS[:60], self._hold, *STEPS[60:]])

    def _hold(self) -> None:
        assert self.go.wait(60)


@contextmanager
def held(
    on: bool = True, of_app: Mapping[str, Any] | None = None, **options: Any
) -> Iterator[tuple[Holding, Live, socket.socket]]:
    """A stream that waits in the middle for its LM's next words; where ``on``, it is spliced."""
    program = Answerer(dspy.ChatAdapter())
    with compiled(on), Holding() as lm, served_by(program, lm, of_app, **options) as live, live.connect() as client:
        client.sendall(ask(live))
        until(lambda: lm.steps == 61)
        ours = splicer(live)
        if ours is not None:
            until(lambda: len(ours) == 1)
        try:
            yield lm, live, client
        finally:
            lm.go.set()
        if ours is not None:
            until(lambda: len(ours) == 0)


def received(client: socket.socket, end: bytes) -> bytes:
    data = bytearray()
    while not data.endswith(end) and (part := client.recv(1 << 16)):
        data += part
    return bytes(data)


def body(data: bytes) -> str:
    """The body of the first reply in some bytes, which is chunked."""
    at, said = data.index(b"\r\n\r\n") + 4, []
    while size := int(data[at : (start := data.index(b"\r\n", at) + 2)], 16):
        said.append(data[start : start + size])
        at = start + size + 2
        assert data[at - 2 : at] == b"\r\n"
    return b"".join(said).decode()


def test_a_client_that_resets_its_connection_is_seen_at_once() -> None:
    with held() as (lm, _, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        until(lambda: lm.open == 0)


@pytest.mark.parametrize("on", [True, False])
def test_a_client_that_closes_its_side_has_left(on: bool) -> None:
    with held(on) as (lm, _, client):
        client.shutdown(socket.SHUT_WR)
        until(lambda: lm.open == 0)


@pytest.mark.parametrize(
    "more", [b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"\x00nothing\r\n\r\n"]
)
def test_what_a_client_sends_during_its_stream_is_answered_after_it(more: bytes) -> None:
    found = []
    for on in (True, False):
        with held(on) as (lm, _, client):
            client.sendall(more[:7])
            lm.go.set()
            client.sendall(more[7:])
            data = received(client, b"never")
            found.append((read(body(data))[1:], data.partition(b"0\r\n\r\n")[2].partition(b"\r\n")[0]))
    assert found[0] == found[1]
    assert found[0][1].startswith(b"HTTP/1.1 ")


def test_a_client_that_does_not_read_holds_up_its_lm_and_then_reads_all() -> None:
    words = ["word " * 1600] * 1200
    opening = ["[[ ## reason ## ]]\nso\n\n[[ ## count ## ]]\n1\n\n[[ ## answer ## ]]\n", *["a"] * 30]
    closing = "\n\n[[ ## sources ## ]]\n[]\n\n[[ ## completed ## ]]"
    steps = steps_of([*opening, *words, closing])
    with compiled(True), ScriptedLM(steps) as lm, served(lm, dspy.ChatAdapter()) as live:
        with live.connect(rcvbuf=4096) as client:
            client.sendall(ask(live))
            live.settled(lambda: lm.steps, lambda: lm.steps > len(opening))
            assert lm.steps < len(steps)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            text = body(received(client, b"\r\n0\r\n\r\n"))
        ours = splicer(live)
        assert ours is not None
        assert ours.passed > 200
    numbers, texts, _ = read(text)
    assert numbers == list(range(1, len(numbers) + 1))
    assert texts["answer", 1] == ("a" * 30 + "".join(words)).strip()


class Noting(dspy.Module):
    """Notes a context variable, which it then sets, and tells something else while it speaks."""

    seen: contextvars.ContextVar[str | None] = contextvars.ContextVar("seen", default=None)

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict(SIGNATURE)
        self.found: list[str | None] = []
        self.emit: Any = None

    async def aforward(self, question: str) -> Any:
        self.found.append(self.seen.get())
        self.seen.set(question)
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        self.emit = lambda: loop.call_soon_threadsafe(lambda: dspy_live.emit("n", {}), context=context)
        return await self.answer.acall(question=question)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_next_request_of_a_connection_knows_nothing_of_the_one_before(loop: str) -> None:
    program = Noting()
    lm = ScriptedLM([*STEPS[:60], lambda: program.emit(), *STEPS[60:]])
    loops = plain_loops() if loop == "asyncio" else nullcontext()
    with loops, compiled(True), lm, served_by(program, lm) as live:
        assert [stream(live).count("event: custom") for _ in range(3)] == [1, 1, 1]
        ours = splicer(live)
        assert ours is not None
        assert ours.passed > 60
    assert program.found == [None, None, None]


def test_a_client_of_http_1_0_gets_its_stream_without_chunks() -> None:
    with compiled(True), ScriptedLM(STEPS) as lm, served(lm, dspy.ChatAdapter()) as live, live.connect() as client:
        client.sendall(ask(live).replace(b"HTTP/1.1", b"HTTP/1.0"))
        text = received(client, b"never").partition(b"\r\n\r\n")[2].decode()
        assert read(text)[1]["answer", 1] == ("word " * 80).strip()
        ours = splicer(live)
        assert ours is not None
        assert ours.passed == 0


def test_under_a_middleware_nothing_is_spliced_and_nothing_is_lost() -> None:
    program = dspy.Predict(SIGNATURE)
    with compiled(True), ScriptedLM(STEPS) as lm:
        program.set_lm(dspy_live.LM("openai/tiny", api_base=lm.url, api_key="x", cache=False))
        app = dspy_live.create_app(program)

        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            async def passed_on(message: Any) -> None:
                await send(message)

            await app(scope, receive, passed_on)

        with support.serving(app, wrap=middleware) as live:
            assert read(stream(live))[1]["answer", 1] == ("word " * 80).strip()
            ours = splicer(live)
            assert ours is not None
            assert ours.passed == 0


def test_a_client_that_speaks_tls_gets_all_and_nothing_of_it_is_spliced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("127.0.0.1")
    options = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    plain = support.QuickServer
    monkeypatch.setattr(support, "QuickServer", lambda *args, **kw: plain(*args, **kw, **options))
    with compiled(True), ScriptedLM(STEPS) as lm, served(lm, dspy.ChatAdapter()) as live:
        with httpx.Client(verify=False, trust_env=False, timeout=BOUND) as client:
            url = live.url.replace("http:", "https:") + "/predict/stream"
            text = client.post(url, json={"question": "why?"}).text
        assert read(text)[1]["answer", 1] == ("word " * 80).strip()
        ours = splicer(live)
        assert ours is not None
        assert ours.passed == 0
