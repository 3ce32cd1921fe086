"""How many bytes of memory one idle stream takes: a figure that does not depend on the machine or its load.

``python bench/idle_memory.py`` opens streams of ``POST /predict/stream`` whose LM has said some words and then is
silent, and prints the bytes that Python's allocators hold for each of them, beside those kept in
``bench/idle_memory.json``; ``--keep`` writes that file anew, ``--lines 40`` prints the lines of code that have
allocated most. ``tests/test_idle_memory.py`` fails where a stream takes over 10 % more than was kept.

There are no sockets: what the event loop holds for two connections (some 2 KB with uvloop) is not counted, nor is the
ledger. The compiled part is left alone, so that the figure does not depend on its being there; it takes some 1 KB more.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dspy
import uvicorn
from uvicorn.server import ServerState

from dspy_live import LM, Runtime, create_app
from dspy_live.runtime import native
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.http.connection import Connection
from dspy_live.runtime.http.pool import Route
from dspy_live.runtime.http.transport import pool_for_running_loop
from dspy_live.server.transport.protocol import Protocol

KEPT = Path(__file__).with_name("idle_memory.json")
VERSION = ".".join(platform.python_version_tuple()[:2])
STREAMS = 100
MOST_TURNS = 100
"""Turns of the event loop in which all streams are told all words; it takes some ten."""
BODY = json.dumps({"question": "What is the capital of France?"}).encode()
REQUEST = (
    b"POST /predict/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nAccept: text/event-stream\r\n\r\n%b" % (len(BODY), BODY)
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORDS = ("[[ ## answer ## ]]\n", "Paris", " is", " the", " capital", " of", " France")


def chunk(text: str) -> bytes:
    """Return a chunk of an LM's stream, framed as HTTP sends it."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    event = b"data: %b\n\n" % json.dumps({**head, "choices": [choice]}, separators=(",", ":")).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


REPLY = (HEAD, *map(chunk, WORDS))


class Wire(asyncio.Transport):
    """A transport without a socket: it hands each piece that is written to ``to``."""

    __slots__ = ("_to",)

    def __init__(self, to: Callable[[bytes], object]) -> None:
        super().__init__()
        self._to = to

    def write(self, data: Any) -> None:
        """Hand on what is written."""
        self._to(data)

    def is_closing(self) -> bool:
        """It never is."""
        return False

    def get_write_buffer_size(self) -> int:
        """All is written."""
        return 0

    def resume_reading(self) -> None:
        """It never pauses."""

    def close(self) -> None:
        """There is nothing to close."""

    def abort(self) -> None:
        """There is nothing to close."""


class Streams:
    """Opens streams of a server without a socket, from an LM that says :data:`WORDS` and then nothing."""

    def __init__(self) -> None:
        lm = LM("openai/gpt-4o-mini", api_base="http://127.0.0.1:1/v1", api_key="x", cache=False)
        dspy.configure(lm=lm)
        app = create_app(dspy.Predict("question -> answer"), runtime=Runtime(account=Account()))
        self._config = uvicorn.Config(
            app.entry, interface="asgi3", http=Protocol, lifespan="off", proxy_headers=False, log_config=None
        )
        self._state = ServerState()
        self._pool = pool_for_running_loop()
        self._pool._connect = self._connect  # type: ignore[method-assign]
        self.protocols: list[Protocol] = []
        self.told = 0

    async def _connect(self, route: Route, limit: float | None) -> Connection:
        connection = Connection(self._pool._lost, route)
        loop = asyncio.get_running_loop()
        connection.connection_made(Wire(lambda _: loop.call_soon(self._reply, connection, REPLY)))
        return connection

    def _reply(self, connection: Connection, pieces: Sequence[bytes]) -> None:
        connection.data_received(pieces[0])
        if len(pieces) > 1:
            asyncio.get_running_loop().call_soon(self._reply, connection, pieces[1:])

    def _told(self, data: bytes) -> None:
        self.told += b" France" in data

    async def open(self, number: int) -> None:
        """Open so many streams more, and wait until each client has been told all of the words."""
        wanted = self.told + number
        for _ in range(number):
            protocol = Protocol(self._config, self._state, {})
            protocol.connection_made(Wire(self._told))
            protocol.data_received(REQUEST)
            self.protocols.append(protocol)
        for _ in range(MOST_TURNS):
            await asyncio.sleep(0)
        if self.told != wanted or len(self._state.tasks) != number:
            raise RuntimeError(f"{wanted - self.told} of {number} streams were not told all words, or have ended")

    async def close(self) -> None:
        """Let the clients leave, and wait until nothing is left of their streams."""
        tasks = list(self._state.tasks)
        for protocol in self.protocols:
            protocol.connection_lost(None)
        self.protocols.clear()
        await asyncio.wait(tasks)


async def measure(streams: int = STREAMS, lines: int = 0, keep: Callable[[], object] = object) -> int:
    """Return the bytes that one idle stream takes, once everything that is made once is made.

    ``keep`` is called for each stream that is measured; ``lines`` of code that have allocated most are printed.
    """
    logging.disable(logging.ERROR)
    os.environ[native.SWITCH] = "0"
    opened = Streams()
    for _ in range(2):
        await opened.open(streams)
        await opened.close()
    gc.collect()
    tracemalloc.start()
    try:
        await opened.open(streams)
        for _ in range(streams):
            keep()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        if lines:
            report(tracemalloc.take_snapshot(), streams, lines)
    finally:
        tracemalloc.stop()
    await opened.close()
    return taken // streams


def report(snapshot: tracemalloc.Snapshot, streams: int, lines: int) -> None:
    """Print the lines of code that have allocated most, by stream."""
    for line in snapshot.statistics("lineno")[:lines]:
        place = f"{line.traceback[0].filename}:{line.traceback[0].lineno}"
        print(f"{line.size / streams:8.0f} bytes in {line.count / streams:6.2f} pieces  {place}")


def kept() -> int | None:
    """Return the bytes that were kept for this version of Python; ``None`` where there are none."""
    figures: dict[str, int] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return figures.get(VERSION)


def main() -> None:
    """Print the bytes that one idle stream takes, or keep them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--keep", action="store_true", help="write the figure to idle_memory.json")
    parser.add_argument("--lines", type=int, default=0, help="print so many lines of code that have allocated most")
    options = parser.parse_args()
    found = asyncio.run(measure(lines=options.lines))
    print(f"an idle stream takes {found} bytes; kept for Python {VERSION}: {kept()}")
    if options.keep:
        figures = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        KEPT.write_text(json.dumps({**figures, VERSION: found}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
