"""Clients that send no request, an endless one, or none that is HTTP: over real sockets."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import pytest
from tests.server.support import Live, http, qa, serving, sse
from tests.support.until import BOUND, until
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from dspy_live.server.transport.protocol import MOST_HEAD, Protocol


@pytest.fixture
def live() -> Iterator[Live]:
    with serving(qa()) as server:
        yield server


def everything(live: Live, data: bytes) -> bytes:
    sock = live.connect()
    reply = b""
    with contextlib.suppress(ConnectionError):  # the server may hang up in the middle
        sock.sendall(data)
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            reply += piece
    sock.close()
    return reply


@pytest.mark.parametrize(
    "head",
    [
        b"X-Big: " + b"a" * (MOST_HEAD + 1) + b"\r\n\r\n",
        b"".join(b"X-%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
        b"X-Big: " + b"a" * 1_000_000,
    ],
    ids=["one header", "many headers", "no end"],
)
def test_a_head_of_any_size_is_refused_at_the_limit(live: Live, head: bytes) -> None:
    reply = everything(live, b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + head)
    assert reply.startswith(b"HTTP/1.1 431 ") or not reply  # a reset may overtake the reply; it is refused all the same
    if reply:
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["type"] == "too_large"
    assert http.get(live.url + "/health/live").status_code == 200


def test_a_head_over_the_limit_by_a_little_is_told(live: Live) -> None:
    reply = everything(live, b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * MOST_HEAD + b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert http.get(live.url + "/health/live", headers={"X-Big": "a" * (MOST_HEAD - 1000)}).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http_are_answered_in_json(live: Live, data: bytes) -> None:
    head, _, body = everything(live, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["type"] == "bad_request"


def said_to_half_a_head(live: Live) -> bytes:
    """What a new client is told that sends half a head; nothing, where its first byte was too late for that."""
    with live.connect() as half, contextlib.suppress(ConnectionError):
        half.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nX-")
        return half.recv(65536)
    return b""


def test_clients_that_send_nothing_or_half_a_head_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(qa()) as live:
        second = live.connect()
        second.sendall(live.request("POST", "/predict", b'{"question":"x"}'))
        assert second.recv(65536).startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr(Protocol, "head_seconds", 0.2)
        with live.connect() as silent:
            assert silent.recv(65536) == b""
        until(lambda: said_to_half_a_head(live).startswith(b"HTTP/1.1 408 "))
        second.sendall(live.request("POST", "/predict", b'{"question":"x"}'))  # an answered connection is kept
        assert second.recv(65536).startswith(b"HTTP/1.1 200 ")
        second.sendall(b"GET /heal")
        assert second.recv(65536).startswith(b"HTTP/1.1 408 ")
        second.close()


def websocket(live: Live) -> ClientConnection:
    """A WebSocket, at the first try whose head comes in time."""
    while True:
        with contextlib.suppress(OSError, EOFError, WebSocketException):
            return connect(live.ws + "/ws")


def test_a_long_stream_and_a_websocket_outlast_the_heads_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Protocol, "head_seconds", 0.5)
    with serving(qa()) as live, websocket(live) as socket:
        time.sleep(0.8)
        socket.send("Why?")
        assert socket.recv(timeout=BOUND)


def test_an_address_over_the_limit_is_told(live: Live) -> None:
    reply = everything(live, b"GET /" + b"a" * (MOST_HEAD + 10) + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("wish", [b"h2c", b"websocket"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_a_request_that_would_rather_speak_another_protocol_keeps_its_body(
    live: Live, wish: bytes, chunked: bool, apart: bool
) -> None:
    # Java's clients ask for h2c with every first request (https://github.com/Kludex/uvicorn/issues/2722).
    body = b'{"question":"why?"}'
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nUpgrade: " + wish + b"\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    head += b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n" + length + b"\r\n\r\n"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    again = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    sock = live.connect()
    if apart:
        sock.sendall(head)
        time.sleep(0.05)
        sock.sendall(sent + again)
    else:
        sock.sendall(head + sent + again)
    reply = b""
    while piece := sock.recv(65536):
        reply += piece
    sock.close()
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b"You asked: why?" in reply
    assert b'{"status":"alive"}' in reply  # the next request on the same connection


@pytest.mark.parametrize("wish", [b"", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"])
def test_a_tunnel_is_refused(live: Live, wish: bytes) -> None:
    reply = everything(live, b"CONNECT example:80 HTTP/1.1\r\nHost: example\r\n" + wish + b"\r\n")
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert http.get(live.url + "/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/predict/stream", "/predict"])
def test_a_client_of_http_1_0_gets_no_chunks(live: Live, path: str) -> None:
    """It has never heard of them: the lengths of the chunks stood between its events."""
    request = live.request("POST", path, b'{"question":"why?"}').replace(b"HTTP/1.1", b"HTTP/1.0")
    head, _, body = everything(live, request).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    if path == "/predict":
        assert json.loads(body)["answer"] == "You asked: why?"
    else:
        assert [name for name, _, _ in sse(body.decode())][-1] == "done"
        assert b"\r\n" not in body
