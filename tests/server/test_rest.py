"""A stream may last for hours: meanwhile its connection keeps neither its request's headers nor a parser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from tests.server.test_exchange import LAST, all_of, request, serving
from tests.server.test_http_wire import STREAM, Held
from tests.support.until import BOUND

from dspy_live.server.transport.exchange import Exchange, exchange_of

LARGE = b"X-Large: " + b"a" * 4_000 + b"\r\n"


class Noting(Held):
    """Keeps the exchange of each request, and what its header ``x-name`` was when it came."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Exchange, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(receive, send)
        assert exchange is not None
        self.seen.append((exchange, dict(scope["headers"]).get(b"x-name", b"")))
        await super().__call__(scope, receive, send)


def name(text: bytes) -> bytes:
    return b"X-Name: " + text + b"\r\n"


@pytest.fixture
def app() -> Noting:
    return Noting()


def read_until(sock: Any, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += sock.recv(65536)
    return data


def parser_of(exchange: Exchange) -> Any:
    connection: Any = exchange._connection
    return connection._parser


def test_a_stream_keeps_no_headers_and_no_parser_and_the_next_request_is_read(app: Noting) -> None:
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held", name(b"first") + LARGE))
        assert app.began.wait(BOUND)
        assert read_until(sock, b"begun\r\n")
        first, _ = app.seen[0]
        assert first.scope["headers"] == []
        assert parser_of(first) is None
        sock.sendall(request(b"/second", name(b"second") + LAST))
        app.let()
        received = all_of(sock)
    assert received.endswith(b"\r\n\r\n/second")
    assert [said for _, said in app.seen] == [b"first", b"second"]


def test_headers_of_a_request_that_waits_behind_a_stream_are_its_own(app: Noting) -> None:
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held", name(b"first")) + request(b"/second", name(b"second") + LAST))
        assert app.began.wait(BOUND)
        app.let()
        received = all_of(sock)
    assert [said for _, said in app.seen] == [b"first", b"second"]
    assert len(re.findall(rb"HTTP/1\.1 200 OK", received)) == 2
    assert STREAM in received


def test_half_a_request_behind_a_stream_is_read_to_its_end(app: Noting) -> None:
    """The parser has the first half: it is kept."""
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held") + b"GET /sec")
        assert app.began.wait(BOUND)
        sock.sendall(b"ond HTTP/1.1\r\nHost: x\r\nX-Name: half\r\n" + LAST + b"\r\n")
        app.let()
        received = all_of(sock)
    assert received.endswith(b"\r\n\r\n/second")
    assert app.seen[1][1] == b"half"


def test_bytes_behind_a_stream_that_is_the_connections_last_are_dropped(app: Noting) -> None:
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held", LAST))
        assert app.began.wait(BOUND)
        sock.sendall(request(b"/second"))
        app.let()
        received = all_of(sock)
    assert received.endswith(STREAM)
    assert len(app.seen) == 1


def test_many_streams_on_one_connection_follow_each_other() -> None:
    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(receive, send)
        assert exchange is not None
        exchange.begin(200, [])
        exchange.end(scope["path"].encode())

    with serving(streaming) as connect:
        sock = connect()
        for number in range(20):
            sock.sendall(request(b"/%02d" % number))
            assert read_until(sock, b"0\r\n\r\n").endswith(b"3\r\n/%02d\r\n0\r\n\r\n" % number)
