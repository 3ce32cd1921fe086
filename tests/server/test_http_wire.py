"""What a client may put on the wire in ways that its library never would: each was answered wrongly once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from tests.server.test_exchange import LAST, all_of, plain, request, serving
from tests.support.until import BOUND, until

from dspy_live.server.transport import connection as connection_module
from dspy_live.server.transport import protocol as protocol_module
from dspy_live.server.transport.exchange import exchange_of
from dspy_live.server.transport.patience import Patience
from dspy_live.server.transport.protocol import MOST_HEAD, Protocol
from dspy_live.testing import virtual_time

WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
CHUNKED = b"Transfer-Encoding: chunked\r\n"


class Held:
    """An application that begins a reply in pieces and ends it when it is let; another path is answered at once."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.gone = threading.Event()
        self._go: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(receive, send)
        assert exchange is not None
        if scope["path"] != "/held":
            exchange.reply(200, [], scope["path"].encode())
            return
        self._loop, self._go = asyncio.get_running_loop(), asyncio.Event()
        exchange.on_gone = lambda why: self.gone.set()
        exchange.begin(200, [])
        exchange.write(b"begun")
        self.began.set()
        await self._go.wait()
        exchange.end(b"ended")

    def let(self) -> None:
        assert self._loop is not None
        assert self._go is not None
        self._loop.call_soon_threadsafe(self._go.set)


STREAM = b"5\r\nbegun\r\n5\r\nended\r\n0\r\n\r\n"


def read_until(sock: Any, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def refused(reply: bytes, status: int) -> None:
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head
    assert "error" in json.loads(body)


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"no request\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * (MOST_HEAD + 300_000), 431),
        (request(b"/", b"Content-Length: 3\r\n" + CHUNKED, b"POST") + b"abc", 400),
        (request(b"/", CHUNKED, b"POST") + b"g\r\n", 400),
    ],
    ids=["no request", "endless head", "two lengths", "bad chunk"],
)
def test_what_is_no_request_is_refused_after_the_replies_to_those_before(bad: bytes, status: int) -> None:
    """The refusal was written into the reply that was under way, and cut it off."""
    app = Held()
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held") + request(b"/second") + bad)
        assert app.began.wait(BOUND)
        received = read_until(sock, b"begun\r\n")
        app.let()
        received += all_of(sock)
    first, second, last = re.split(rb"(?=HTTP/1\.1 \d)", received)[1:]
    assert first.partition(b"\r\n\r\n")[2] == STREAM
    assert second.endswith(b"\r\n\r\n/second")
    refused(last, status)


def test_the_client_that_leaves_after_bad_bytes_is_missed() -> None:
    app = Held()
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held"))
        assert app.began.wait(BOUND)
        sock.sendall(b"no request\r\n\r\n")
        sock.sendall(b"nor this")
        sock.close()
        assert app.gone.wait(BOUND)


def test_a_body_that_breaks_off_into_no_chunk_ends_its_request_and_is_refused() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            seen.append(message["type"])
            if message["type"] == "http.disconnect":
                return

    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/", CHUNKED, b"POST") + b"3\r\nabc\r\n")
        until(lambda: bool(seen))
        sock.sendall(b"no length\r\n")
        refused(all_of(sock), 400)
        until(lambda: seen[-1] == "http.disconnect")


@pytest.mark.parametrize(
    "before",
    [
        request(b"/a", b"Content-Length: 100000\r\n", b"POST") + b"b" * 100_000,
        request(b"/a", b"X: " + b"a" * 100 + b"\r\n") * 900,
    ],
    ids=["body", "requests"],
)
def test_the_bytes_before_a_head_do_not_count_as_the_heads(before: bytes) -> None:
    """A head whose first half came in one piece with 64 KB of other requests was refused as too large."""
    last = request(b"/end", LAST)
    with serving(plain) as connect:
        sock = connect()
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(all_of(sock)))
        reader.start()
        sock.sendall(before + last[:10])
        sock.sendall(last[10:])
        reader.join(BOUND)
    assert received[0].endswith(b"\r\n\r\n/end")
    assert b" 431 " not in received[0]


@pytest.mark.parametrize("between", [b"\r\n", b""], ids=["empty line", "rest of a body"])
def test_an_unused_connection_is_closed_whatever_came_after_its_last_reply(between: bytes) -> None:
    """Bytes that were no head ended the time of an unused connection for good, and it was kept for ever."""
    with serving(plain, timeout_keep_alive=1) as connect:
        sock = connect()
        if between:
            sock.sendall(request(b"/a"))
        else:
            sock.sendall(request(b"/a", b"Content-Length: 1000\r\n", b"POST"))
        read_until(sock, b"\r\n\r\n/a")
        with contextlib.suppress(ConnectionError):  # a client that was late for its bytes is closed too
            sock.sendall(between or b"some")
            assert all_of(sock) == b""  # within the time of the socket


def test_half_a_head_does_not_end_the_reply_to_the_request_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal for the time that the head took was written into a stream."""
    turns: list[float] = []
    give_up = Protocol.give_up

    def counted(self: Protocol) -> None:
        turns.append(1)
        give_up(self)

    monkeypatch.setattr(Protocol, "give_up", counted)
    app = Held()
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/first"))
        read_until(sock, b"/first")
        monkeypatch.setattr(Protocol, "head_seconds", 0.05)  # the first head of a connection may be late
        sock.sendall(request(b"/held") + b"GET /more HT")
        assert app.began.wait(BOUND)
        until(lambda: len(turns) > 2)
        app.let()
        received = all_of(sock)
    assert received.count(STREAM) == 1
    refused(received.partition(STREAM)[2], 408)


def test_many_wishes_for_another_protocol_are_all_passed_over() -> None:
    """Each was read one call deeper than the one before: hundreds of them ended in a RecursionError."""
    wish = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    with serving(plain) as connect:
        sock = connect()
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(all_of(sock)))
        reader.start()
        sock.sendall(request(b"/a", wish) * 900 + request(b"/end", LAST))
        reader.join(BOUND)
    assert received[0].count(b"HTTP/1.1 200 OK") == 901
    assert received[0].endswith(b"/end")


def test_a_websocket_that_is_asked_for_during_a_reply_does_not_break_into_it() -> None:
    app = Held()
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held") + request(b"/ws", WEBSOCKET) + request(b"/end", LAST))
        assert app.began.wait(BOUND)
        app.let()
        received = all_of(sock)
    first, second, _ = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first.endswith(STREAM)
    assert second.endswith(b"/ws")


def test_trailers_without_an_end_are_refused() -> None:
    """The parser keeps a header until its end: memory of any size."""
    with serving(_reads_all) as connect:
        sock = connect()
        sock.sendall(request(b"/", CHUNKED, b"POST") + b"3\r\nabc\r\n0\r\nX: ")
        piece, sent = b"a" * 65_536, 0
        try:
            while sent < 100 * MOST_HEAD:
                sent += sock.send(piece)
            assert all_of(sock).startswith(b"HTTP/1.1 400 ")
        except ConnectionError:
            pass  # the server hung up while this client was sending
    with serving(_reads_all) as connect:
        sock = connect()
        sock.sendall(request(b"/", CHUNKED + LAST, b"POST") + b"3\r\nabc\r\n0\r\nX: " + b"a" * 1000 + b"\r\n\r\n")
        assert all_of(sock).endswith(b"\r\n\r\nabc")


async def _reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    exchange = exchange_of(receive, send)
    assert exchange is not None
    exchange.reply(200, [], body)


def test_a_client_of_http_1_0_is_not_told_to_continue() -> None:
    """It knows no such reply, and takes it for the one to its request."""
    begun = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_soon(begun.set)  # when it waits for the body
        await _reads_all(scope, receive, send)

    with serving(app) as connect:
        sock = connect()
        sock.sendall(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert begun.wait(BOUND)
        sock.sendall(b"abc")
        assert all_of(sock).startswith(b"HTTP/1.1 200 OK")


def test_an_address_that_is_none_leaves_the_replies_before_it() -> None:
    app = Held()
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held") + request(b"http://"))
        assert app.began.wait(BOUND)
        app.let()
        received = all_of(sock)
    assert received.count(STREAM) == 1
    refused(received.partition(STREAM)[2], 400)


def test_more_requests_at_once_than_anybody_needs_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes much more memory than its eighteen bytes on the wire."""
    app = Held()
    monkeypatch.setattr(protocol_module, "MOST_TOGETHER", 10)
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/held"))
        assert app.began.wait(BOUND)
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(all_of(sock)))
        reader.start()
        sock.sendall(request(b"/a") * 100)
        app.let()
        reader.join(BOUND)
    _, *replies, last = re.split(rb"(?=HTTP/1\.1 \d)", received[0])
    assert len(replies) >= 10
    refused(last, 400)


def test_a_request_with_a_body_is_no_websockets() -> None:
    """Nothing read its body, and the client waited for ever."""
    with serving(plain) as connect:
        sock = connect()
        sock.sendall(request(b"/ws", WEBSOCKET + b"Content-Length: 3\r\n") + b"abc" + request(b"/end", LAST))
        received = all_of(sock)
    assert b"HTTP/1.1 101 " not in received
    assert received.endswith(b"\r\n\r\n/end")


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("way", ["reply", "begin", "messages", "messages with a length"])
def test_a_reply_that_has_no_body_has_none(status: int, way: str) -> None:
    """What an application gave as its body was read as the next reply."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(receive, send)
        assert exchange is not None
        if scope["path"] == "/end":
            exchange.reply(200, [], b"/end")
        elif way == "reply":
            exchange.reply(status, [], b"body")
        elif way == "begin":
            exchange.begin(status, [])
            exchange.end(b"body")
        else:
            headers = [(b"content-length", b"4")] if way.endswith("length") else []
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"body"})

    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/a") + request(b"/end", LAST))
        first, second = all_of(sock).split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"%d " % status)
    assert first.endswith(b"\r\n\r\n")
    assert second.endswith(b"\r\n\r\n/end")


def test_a_reply_is_framed_in_one_way() -> None:
    """An application may give a length and a coding: a client that believes the other one reads on into the next."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2"), (b"transfer-encoding", b"chunked"), (b"connection", b"Close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ab"})

    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/a"))
        received = all_of(sock)  # which has an end, as the application wanted
    assert b"transfer-encoding" not in received
    assert received.endswith(b"\r\n\r\nab")


def test_the_last_reply_of_a_connection_comes_through_while_its_request_is_still_being_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed at once, the connection was reset by the bytes that came, and the reply was lost with it."""
    monkeypatch.setattr(connection_module, "LINGER", 60.0)
    body = b"b" * 3_000_000
    with serving(plain) as connect:
        sock = connect()
        sock.sendall(request(b"/a", LAST + b"Content-Length: %d\r\n" % len(body), b"POST"))
        read_until(sock, b"\r\n\r\n/a")
        sock.sendall(body)
        assert all_of(sock) == b""  # an end, and no reset


def test_the_last_reply_of_a_connection_does_not_wait_for_a_body_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LINGER", 0.05)
    with serving(plain) as connect:
        sock = connect()
        sock.sendall(request(b"/a", LAST + b"Content-Length: 3000\r\n", b"POST"))
        assert all_of(sock).endswith(b"/a")
        until(lambda: _is_reset(sock))


def _is_reset(sock: Any) -> bool:
    try:
        sock.send(b"b")
    except ConnectionError:
        return True
    return False


@virtual_time
async def test_one_whose_time_is_over_may_begin_to_wait_once_more() -> None:
    loop = asyncio.get_running_loop()
    over: list[tuple[str, float]] = []

    def again(one: str) -> None:
        over.append((one, round(loop.time() - start, 1)))
        if len(over) < 4:
            patience.start(one, 10.0)

    patience: Patience[str] = Patience(loop, again)
    start = loop.time()
    patience.start("a", 10.0)
    await asyncio.sleep(5)
    patience.start("b", 10.0)
    await asyncio.sleep(60)
    assert over == [("a", 10.0), ("b", 15.0), ("a", 20.0), ("b", 25.0), ("a", 30.0)]
    assert len(patience) == 0
