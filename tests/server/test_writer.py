"""Writing from plain calls, over real sockets: to clients that keep up, that stop reading, that leave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from tests.support.until import BOUND, until
from websockets.sync.client import connect

from dspy_live.server.errors import ClientGone
from dspy_live.server.transport.address import listen
from dspy_live.server.transport.protocol import Protocol
from dspy_live.server.transport.writer import Writer

PIECES = 20_000
PIECE = 500

Work = Callable[[Writer, "Notes"], Awaitable[None]]


class Notes:
    """What the server's side of a test has seen."""

    def __init__(self) -> None:
        self.written = 0
        self.waits = False
        self.idle: list[bool] = []
        self.sends: list[Message] = []
        self.lost: list[ClientGone] = []
        self.over = False


@contextlib.contextmanager
def writing(work: Work, http: Any = Protocol, wrapped: bool = False) -> Iterator[tuple[int, Notes]]:
    """Serve an application that does ``work`` with a writer; ``wrapped``: its ``send`` is not uvicorn's own."""
    notes = Notes()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            notes.sends.append(message)
            await send(message)

        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        writer = Writer(counted if wrapped else send, notes.lost.append)
        try:
            await work(writer, notes)
        finally:
            writer.close()
            notes.over = True

    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, http=http, ws="websockets-sansio", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]

    def run() -> None:
        asyncio.run(server.serve([listener]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield listener.getsockname()[1], notes
    finally:
        server.should_exit = server.force_exit = True
        thread.join(BOUND)
        assert not thread.is_alive()


def head() -> Message:
    return {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


def end() -> Message:
    return {"type": "http.response.body", "body": b"!", "more_body": False}


def piece(number: int) -> bytes:
    return b"%08d" % number + b"x" * (PIECE - 8)


async def flood(writer: Writer, notes: Notes) -> None:
    """Write all pieces; wait where there is no room."""
    writer.write(head())
    for number in range(PIECES):
        room = writer.write(body(piece(number)))
        notes.written += 1
        if not room:
            notes.waits = True
            await writer.room()
            notes.waits = False
    await writer.end(end())


def connected(port: int, rcvbuf: int | None = None) -> socket.socket:
    sock = socket.socket()
    if rcvbuf is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    sock.settimeout(BOUND)
    sock.connect(("127.0.0.1", port))
    return sock


def ask(port: int, rcvbuf: int | None = None) -> socket.socket:
    sock = connected(port, rcvbuf)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Read a chunked reply to its end and return its body."""
    received = bytearray()
    while not received.endswith(b"\r\n0\r\n\r\n"):
        data = sock.recv(1 << 20)
        assert data, "the server hung up"
        received += data
    pieces, at = [], received.index(b"\r\n\r\n") + 4
    while at < len(received):
        line = received.index(b"\r\n", at)
        size = int(received[at:line], 16)
        pieces.append(received[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
    return b"".join(pieces)


@pytest.mark.parametrize("http", [Protocol, "h11"])
def test_while_the_client_keeps_up_each_piece_is_written_in_the_call(http: Any) -> None:
    async def work(writer: Writer, notes: Notes) -> None:
        writer.write(head())
        tasks = len(asyncio.all_tasks())
        for number in range(50):
            assert writer.write(body(piece(number)))
            notes.idle.append(writer.idle)
            assert len(asyncio.all_tasks()) == tasks
            await asyncio.sleep(0)
        await writer.end(end())

    with writing(work, http) as (port, notes), ask(port) as sock:
        assert read_all(sock) == b"".join(map(piece, range(50))) + b"!"
    assert notes.idle == [True] * 50


@pytest.mark.parametrize("http", [Protocol, "h11"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_client_that_stops_reading_pauses_the_source_and_misses_nothing(http: Any, wrapped: bool) -> None:
    with writing(flood, http, wrapped) as (port, notes), ask(port, rcvbuf=1 << 16) as sock:
        until(lambda: notes.waits)
        assert not notes.over
        received = read_all(sock)
    assert received == b"".join(map(piece, range(PIECES))) + b"!"
    assert notes.written == PIECES
    assert notes.lost == []


def test_writes_to_a_slow_client_are_kept_in_order() -> None:
    async def work(writer: Writer, notes: Notes) -> None:
        writer.write(head())
        while writer.write(body(piece(notes.written))):
            notes.written += 1
        for number in range(notes.written + 1, notes.written + 1000):  # what the source has in hand
            assert not writer.write(body(piece(number)))
        notes.written += 1000
        notes.waits = True
        await writer.end(end())

    with writing(work) as (port, notes), ask(port, rcvbuf=1 << 16) as sock:
        until(lambda: notes.waits)
        assert read_all(sock) == b"".join(map(piece, range(notes.written))) + b"!"


def test_under_a_middleware_many_pieces_are_one_send() -> None:
    async def work(writer: Writer, notes: Notes) -> None:
        writer.write(head())
        for number in range(30):
            assert writer.write(body(piece(number)))
        await writer.end(end())

    with writing(work, wrapped=True) as (port, notes), ask(port) as sock:
        assert read_all(sock) == b"".join(map(piece, range(30))) + b"!"
    assert [message["type"] for message in notes.sends] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_client_that_leaves_while_the_source_waits_frees_it(wrapped: bool) -> None:
    with writing(flood, wrapped=wrapped) as (port, notes):
        with ask(port, rcvbuf=1 << 16):
            until(lambda: notes.waits)
        until(lambda: notes.over)


def test_a_writer_that_is_closed_while_it_waits_sends_nothing_more() -> None:
    async def work(writer: Writer, notes: Notes) -> None:
        writer.write(head())
        while writer.write(body(piece(0))):
            pass
        waiting = asyncio.create_task(writer.room())
        writer.close()
        await waiting
        assert writer.write(body(piece(1)))
        notes.waits = True

    with writing(work) as (port, notes), ask(port, rcvbuf=1 << 16) as sock:
        until(lambda: notes.over)
        assert notes.waits
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(1 << 20):
                received += data
        assert piece(0) in received
        assert piece(1) not in received


# WebSocket.


async def flood_frames(writer: Writer, notes: Notes) -> None:
    for number in range(PIECES):
        room = writer.write({"type": "websocket.send", "text": piece(number).decode()})
        notes.written += 1
        if not room:
            notes.waits = True
            await writer.room()
            notes.waits = False
    await writer.end({"type": "websocket.close", "code": 4000})


@contextlib.contextmanager
def slow_socket(port: int) -> Iterator[socket.socket]:
    """A WebSocket on a bare socket: nothing is read but what the test reads."""
    key = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n"
    with connected(port, rcvbuf=1 << 16) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + key % base64.b64encode(b"k" * 16) + b"\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        yield sock


def read_frames(sock: socket.socket) -> Iterator[str]:
    """Yield the text frames until the close frame. None of ours is longer than 64 KiB."""
    with sock.makefile("rb") as stream:
        while True:
            opcode, size = stream.read(2)
            if size == 126:
                size = int.from_bytes(stream.read(2), "big")
            data = stream.read(size)
            if opcode == 0x88:
                return
            if opcode == 0x81:
                yield data.decode()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_websocket_client_that_stops_reading_pauses_the_source_and_misses_nothing(wrapped: bool) -> None:
    with writing(flood_frames, wrapped=wrapped) as (port, notes), slow_socket(port) as client:
        until(lambda: notes.waits)
        frames = list(read_frames(client))
    assert frames == [piece(number).decode() for number in range(PIECES)]
    assert notes.lost == []


def test_a_write_to_a_socket_that_was_closed_is_told_once_and_never_raised() -> None:
    async def work(writer: Writer, notes: Notes) -> None:
        while not notes.lost:
            writer.write({"type": "websocket.send", "text": "x"})
            await asyncio.sleep(0.001)
        for _ in range(3):
            assert writer.write({"type": "websocket.send", "text": "x"})
        await writer.end({"type": "websocket.close"})

    with writing(work) as (port, notes):
        with connect(f"ws://127.0.0.1:{port}/") as client:
            assert client.recv(BOUND) == "x"
        until(lambda: notes.over)
    assert [type(exc) for exc in notes.lost] == [ClientGone]


def test_many_runs_of_one_slow_socket_keep_their_order() -> None:
    async def work(writer: Writer, notes: Notes) -> None:
        async def one(name: int) -> None:
            for number in range(2000):
                text = json.dumps([name, number, "x" * PIECE])
                if not writer.write({"type": "websocket.send", "text": text}):
                    notes.waits = True
                    await writer.room()

        await asyncio.gather(*(one(name) for name in range(5)))
        await writer.end({"type": "websocket.close", "code": 4000})

    with writing(work) as (port, notes), slow_socket(port) as client:
        until(lambda: notes.waits)
        found: dict[int, list[int]] = {}
        for frame in read_frames(client):
            name, number, _ = json.loads(frame)
            found.setdefault(name, []).append(number)
    assert found == {name: list(range(2000)) for name in range(5)}
