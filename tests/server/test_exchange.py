"""A connection of ours: requests in their order, framing, and the plain calls in place of ASGI's two functions."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from tests.support.until import BOUND, until

from dspy_live.server.transport.address import listen
from dspy_live.server.transport.disconnect import Watch
from dspy_live.server.transport.exchange import exchange_of
from dspy_live.server.transport.patience import Patience
from dspy_live.server.transport.protocol import Protocol
from dspy_live.testing import virtual_time

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@contextlib.contextmanager
def serving(app: App, **options: Any) -> Iterator[Callable[[], Any]]:
    """Serve an application; yields what connects to it."""
    import socket

    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, interface="asgi3", http=Protocol, lifespan="off", log_config=None, **options)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    until(lambda: server.started)
    opened = []

    def connect() -> socket.socket:
        sock = socket.create_connection(listener.getsockname(), BOUND)
        opened.append(sock)
        return sock

    try:
        yield connect
    finally:
        for sock in opened:
            sock.close()
        server.should_exit = server.force_exit = True
        thread.join(BOUND)
        assert not thread.is_alive()


def all_of(sock: Any) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def request(path: bytes, more: bytes = b"", method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n"


LAST = b"Connection: close\r\n"


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers by plain calls: with the path as a whole reply, or in three pieces below ``/pieces``."""
    exchange = exchange_of(receive, send)
    assert exchange is not None
    path = scope["path"].encode()
    if not path.startswith(b"/pieces"):
        exchange.reply(200, [(b"x-path", path)], path)
        return
    exchange.begin(200, [])
    for _ in range(2):
        assert exchange.write(path)
        await asyncio.sleep(0)
    exchange.end(path)


async def by_messages(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as ``plain`` does, by ASGI's messages."""
    path = scope["path"].encode()
    pieces = 3 if path.startswith(b"/pieces") else 1
    headers = [] if pieces == 3 else [(b"content-length", b"%d" % len(path)), (b"x-path", path)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(pieces):
        await send({"type": "http.response.body", "body": path, "more_body": number < pieces - 1})


@pytest.mark.parametrize("app", [plain, by_messages])
def test_requests_that_come_together_are_answered_in_their_order(app: App) -> None:
    asked = [b"/a", b"/pieces/b", b"/c", b"/pieces/d"]
    with serving(app) as connect:
        sock = connect()
        sock.sendall(b"".join(map(request, asked)) + request(b"/end", LAST))
        replies = all_of(sock).split(b"HTTP/1.1 200 OK\r\n")[1:]
    bodies = [reply.partition(b"\r\n\r\n")[2] for reply in replies]
    chunk = b"9\r\n/pieces/%b\r\n"
    assert bodies == [b"/a", chunk % b"b" * 3 + b"0\r\n\r\n", b"/c", chunk % b"d" * 3 + b"0\r\n\r\n", b"/end"]
    for reply in replies:
        head = reply.partition(b"\r\n\r\n")[0].lower()
        assert head.count(b"date: ") == 1
        assert (b"content-length: " in head) != (b"transfer-encoding: chunked" in head)


def test_many_requests_that_come_together_are_all_answered() -> None:
    paths = [b"/%d" % number for number in range(200)]
    with serving(plain) as connect:
        sock = connect()
        sock.sendall(b"".join(map(request, paths)) + request(b"/end", LAST))
        received = all_of(sock)
    found = [reply.rpartition(b"\r\n\r\n")[2] for reply in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert found == [*paths, b"/end"]


@pytest.mark.parametrize("app", [plain, by_messages])
@pytest.mark.parametrize("path", [b"/whole", b"/pieces"])
def test_a_reply_to_head_has_no_body_and_the_next_one_follows(app: App, path: bytes) -> None:
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(path, method=b"HEAD") + request(b"/end", LAST))
        first, second = all_of(sock).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first.endswith(b"\r\n\r\n")
    assert first.count(b"\r\n\r\n") == 1
    assert second.endswith(b"\r\n\r\n/end")


def test_a_body_is_taken_whole_or_by_messages_and_continue_is_said_where_it_is_awaited() -> None:
    seen: list[tuple[bytes | None, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(receive, send)
        assert exchange is not None
        whole, by_message = exchange.whole_body(), b""
        if whole is None:
            more = True
            while more:
                message = await receive()
                by_message += message["body"]
                more = message["more_body"]
        assert exchange.whole_body() is None  # it was taken
        seen.append((whole, by_message))
        exchange.reply(200, [], b"")

    big = b"b" * 3_000_000
    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/", b"Content-Length: 3\r\n", b"POST") + b"abc")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        sock.sendall(request(b"/", b"Content-Length: 3000000\r\nExpect: 100-continue\r\n", b"POST"))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(big)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert seen == [(b"abc", b""), (None, big)]


def test_the_client_of_a_request_that_is_answered_while_others_wait_is_missed() -> None:
    """Of several requests that came together only the last one's run was told that its client had left."""
    told: list[str] = []
    begun = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/a":
            exchange_of(receive, send).reply(200, [], b"")  # type: ignore[union-attr]
            return
        gone = asyncio.Event()

        def leave(why: Exception) -> None:
            told.append(str(why))
            gone.set()

        exchange = exchange_of(receive, send)
        assert exchange is not None
        with Watch(exchange, leave):
            begun.set()
            await gone.wait()

    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/a") + request(b"/b") + request(b"/c"))
        assert begun.wait(BOUND)
        sock.close()
        until(lambda: bool(told))
    assert told[0] == "the client closed its connection"


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\x00b"])
@pytest.mark.parametrize("plainly", [True, False])
def test_a_header_with_a_line_break_is_never_written(value: bytes, plainly: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(receive, send)
        assert exchange is not None
        if plainly:
            exchange.reply(200, [(b"x-name", value)], b"")
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-name", value)]})

    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/"))
        assert b"x-name" not in all_of(sock)


@pytest.mark.parametrize("length", [1, 3])
def test_a_body_of_another_length_than_its_head_says_ends_the_connection(length: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ab", "more_body": False})

    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/"))
        assert all_of(sock).endswith(b"\r\n\r\n")


def test_what_stands_between_has_no_exchange() -> None:
    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    assert exchange_of(receive, send) is None


@virtual_time
async def test_all_who_wait_have_one_timer_and_each_its_own_end() -> None:
    loop = asyncio.get_running_loop()
    over: list[tuple[str, float]] = []
    patience: Patience[str] = Patience(loop, lambda one: over.append((one, round(loop.time() - start, 1))))
    start = loop.time()
    for name in "abc":
        patience.start(name, 10.0)
        await asyncio.sleep(1)
    patience.stop("b")
    patience.stop("nobody")
    assert "a" in patience
    assert len(patience) == 2
    await asyncio.sleep(60)
    assert over == [("a", 10.0), ("c", 12.0)]
    patience.start("later", 10.0)
    patience.stop("later")
    patience.start("hurried", 1.0)
    await asyncio.sleep(2)
    assert [one for one, _ in over] == ["a", "c", "hurried"]


def test_a_piece_that_may_wait_goes_out_with_the_next_one_or_at_the_turns_end() -> None:
    written: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(receive, send)
        assert exchange is not None
        put = exchange._connection.write

        def noted(data: bytes) -> None:
            written.append(data)
            put(data)

        exchange._connection.write = exchange._put = noted
        exchange.begin(200, [])
        del written[:]
        assert exchange.write_soon(b"a")
        assert exchange.write_soon(b"b")
        assert exchange.write_soon(b"c")
        await asyncio.sleep(0)
        exchange.write_soon(b"d")
        exchange.end(b"e")
        await asyncio.sleep(0)

    with serving(app) as connect:
        sock = connect()
        sock.sendall(request(b"/", LAST))
        whole = all_of(sock)
    assert written == [b"1\r\na\r\n1\r\nb\r\n", b"1\r\nc\r\n", b"1\r\nd\r\n1\r\ne\r\n0\r\n\r\n"]
    assert whole.endswith(b"".join(written))
