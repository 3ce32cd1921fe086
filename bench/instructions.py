"""How many instructions of Python fixed work takes: a figure that does not depend on the machine or its load.

``python bench/instructions.py`` prints the counts beside those kept in ``bench/instructions.json``; ``--keep`` writes
that file anew. ``tests/test_instructions.py`` fails where a count is more than 5 % above the kept one: make it cheaper,
or keep the new count and say in the commit what it is spent on. C code, such as parsers of JSON and HTTP, is not
counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import dspy
import uvicorn
from uvicorn.server import ServerState

from dspy_live import LM, Runtime, asyncify, create_app
from dspy_live.core.call import Call
from dspy_live.core.events import Completion, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.http.connection import Connection
from dspy_live.runtime.http.pool import HttpPool, Route
from dspy_live.server.transport.protocol import Protocol

KEPT = Path(__file__).with_name("instructions.json")
VERSION = ".".join(platform.python_version_tuple()[:2])
TOKENS = 100
WORDS = [f"word{number} " for number in range(TOKENS)]
TEXT = f"[[ ## answer ## ]]\n{''.join(WORDS)}\n\n[[ ## completed ## ]]\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
QUESTION = {"question": "What is the capital of France?"}

Work = Callable[[], Awaitable[object]]


async def reply(call: Call, sink: Sink) -> Completion:
    """An LM's endpoint that answers at once: by word where it is asked to stream."""
    if call.stream:
        for piece in ("[[ ## answer ## ]]\n", *WORDS, "\n\n[[ ## completed ## ]]\n"):
            sink.push(TextDelta(piece))
    message = {"role": "assistant", "content": TEXT}
    return Completion({"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": USAGE})


def works() -> dict[str, Work]:
    """Return the pieces of work that are counted, by their names."""
    lm = LM("openai/gpt-4o-mini", api_key="x", endpoint=reply, cache=False)
    dspy.configure(lm=lm, disable_history=True)
    runtime = Runtime(account=Account())
    app = create_app(dspy.Predict("question -> answer"), runtime=runtime)
    call = asyncify(dspy.Predict("question -> answer"), runtime=runtime)

    return {
        "asyncify, a call": lambda: call(**QUESTION),
        "POST /predict, a request": lambda: request(app, "/predict"),
        f"POST /predict/stream, a request of {TOKENS} tokens": lambda: request(app, "/predict/stream"),
        "POST /predict over a kept connection": Client(app).ask,
        "a request to an LM over a kept connection": Asker().ask,
    }


async def request(app: Any, path: str) -> bytes:
    """Send one request to the ASGI application itself and return the reply's body."""
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    body = json.dumps(QUESTION).encode()
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    parts: list[bytes] = []

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
        parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return b"".join(parts)


class Wire(asyncio.Transport):
    """A transport without a socket: it keeps what is written, and answers it with ``reply`` where it has one."""

    def __init__(self, reply: bytes = b"", to: Callable[[bytes], object] = len) -> None:
        super().__init__()
        self.written = b""
        self._reply, self._to = reply, to

    def write(self, data: Any) -> None:
        """Keep what is written."""
        self.written += data
        if self._reply:
            asyncio.get_running_loop().call_soon(self._to, self._reply)

    def is_closing(self) -> bool:
        """It never is."""
        return False

    def get_write_buffer_size(self) -> int:
        """All is written."""
        return 0

    def abort(self) -> None:
        """There is nothing to close."""


class Client:
    """Sends requests to an application over one connection of the server, without a socket."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app.entry, interface="asgi3", http=Protocol, lifespan="off", log_config=None)
        self._state = ServerState()
        self._protocol = Protocol(config, self._state, {})
        self._wire = Wire()
        self._protocol.connection_made(self._wire)
        body = json.dumps(QUESTION).encode()
        head = (
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        )
        self._request = head % len(body) + body

    async def ask(self) -> None:
        """Send one request and wait for the reply."""
        self._wire.written = b""
        self._protocol.data_received(self._request)
        await asyncio.wait(list(self._state.tasks))
        assert self._wire.written.startswith(b"HTTP/1.1 200 OK"), self._wire.written


class Asker:
    """Sends requests to an LM's server over one connection of the pool, without a socket."""

    def __init__(self) -> None:
        self._pool = HttpPool(proxies={})
        self._pool._connect = self._connect  # type: ignore[method-assign]

    async def _connect(self, route: Route, limit: float | None) -> Connection:
        connection = Connection(self._pool._lost, route)
        reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        connection.connection_made(Wire(reply, connection.data_received))
        return connection

    async def ask(self) -> None:
        """Send one request and read the reply."""
        headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
        async with self._pool.exchange("POST", "http://127.0.0.1:1/v1/chat/completions", headers, b"{}") as exchange:
            await exchange.headers_received()
            assert await exchange.read() == b"{}"


async def count(work: Work, times: int = 5) -> int:
    """Return the instructions that one piece of work takes, once everything that is made once is made."""
    for _ in range(times):
        await work()
    counted = 0

    def instruction(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal counted
        counted += event == "opcode"
        return instruction

    def call(frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return instruction

    sys.settrace(call)
    try:
        for _ in range(times):
            await work()
            await asyncio.sleep(0)
    finally:
        sys.settrace(None)
    return counted // times


async def measure() -> dict[str, int]:
    """Return the instructions of each piece of work."""
    logging.disable(logging.WARNING)
    return {name: await count(work) for name, work in works().items()}


def kept() -> dict[str, int]:
    """Return the counts that were kept for this version of Python; empty where there are none."""
    counts: dict[str, int] = json.loads(KEPT.read_text()).get(VERSION, {}) if KEPT.exists() else {}
    return counts


def main() -> None:
    found, before = asyncio.run(measure()), kept()
    for name, number in found.items():
        change = f"{number / before[name] - 1:+.1%}" if name in before else "new"
        print(f"{name:50} {number:9,}  {change}")
    if "--keep" in sys.argv[1:]:
        whole = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        KEPT.write_text(json.dumps({**whole, VERSION: found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
