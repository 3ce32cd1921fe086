"""A real server on a real socket for the tests, and scripted services that a test controls."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
from starlette.types import ASGIApp
from tests.support.until import BOUND
from tests.support.until import until as until

from dspy_live.core.call import Call
from dspy_live.core.events import Event, Predicted, Result, Started, Token, Usage
from dspy_live.core.schema import Field, Schema
from dspy_live.core.sink import Sink
from dspy_live.server import App, ServedProgram, create_app
from dspy_live.server.sessions.sessions import InSession
from dspy_live.server.transport.address import listen
from dspy_live.server.transport.serve import LiveServer

http = httpx.Client(verify=False, trust_env=False, timeout=BOUND)
"""One client for all tests: each of its own would load certificates that nobody needs here."""

atexit.register(http.close)

Script = Callable[[Call, "Tape"], Awaitable[None]]


class Tape:
    """What one scripted run tells its sink. ``waits`` is true while the sink has no room."""

    def __init__(self, call: Call, sink: Sink) -> None:
        self.call = call
        self.sink = sink
        self.pushed = 0
        self.waits = False
        self.result: Predicted | None = None

    async def push(self, *events: Event | Predicted) -> None:
        """Push events, and wait for room where there is none; a prediction is what the run returns."""
        for event in events:
            if isinstance(event, Predicted):
                self.result = event
                continue
            self.pushed += 1
            if not self.sink.push(event):
                self.waits = True
                await self.sink.room()
                self.waits = False

    async def tokens(self, text: str, field: str = "answer", lm_call: int = 1, pause: float = 0.0) -> None:
        """Push a text word by word, with a pause (seconds) between the words."""
        words = [w + " " for w in text.split(" ")]
        words[-1] = words[-1][:-1]
        for i, word in enumerate(words):
            await self.push(Token(word, field, "predict", lm_call, i == len(words) - 1))
            await asyncio.sleep(pause)


class Scripted:
    """A service whose runs follow a script; it remembers the calls and how each ended."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.tapes: list[Tape] = []
        self.ended: dict[str, str] = {}

    async def __call__(self, call: Call, sink: Sink) -> Result:
        tape = Tape(call, sink)
        self.calls.append(call)
        self.tapes.append(tape)
        how = "finished"
        try:
            await self.script(call, tape)
        except BaseException as exc:
            how = type(exc).__name__
            raise
        finally:
            self.ended[call.id] = how
        return tape.result  # type: ignore[return-value]


def text_convert(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {type(value).__name__}")
    return value


QA = Schema(
    "QA",
    (Field("question", description="What to ask", convert=text_convert),),
    (Field("reasoning"), Field("answer", description="What is said")),
    "Answers questions.",
)

USAGE = Usage("fake/model", "predict", 1, prompt_tokens=7, completion_tokens=5, total_tokens=12, cost=0.001)


async def answer(call: Call, tape: Tape) -> None:
    """The usual script: an answer of some words that repeats the question."""
    text = f"You asked: {call.inputs['question']}"
    await tape.push(Started(call.id, "QA"))
    if call.stream:
        await tape.tokens("I think.", field="reasoning")
        await tape.tokens(text)
    await tape.push(USAGE, Predicted({"reasoning": "I think.", "answer": text}))


def qa(script: Script = answer, schema: Schema = QA, **kw: Any) -> ServedProgram:
    return ServedProgram("qa", Scripted(script), schema, **kw)


def scripted(program: ServedProgram) -> Scripted:
    """The service of a program that stands in no layers."""
    service = program.service.service if isinstance(program.service, InSession) else program.service
    assert isinstance(service, Scripted)
    return service


class Live:
    """A running server."""

    def __init__(self, app: App, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.port = port
        self.loop = loop
        self.url = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}"

    @property
    def service(self) -> Scripted:
        return scripted(self.app.default)

    def connect(self, rcvbuf: int | None = None) -> socket.socket:
        sock = socket.socket()
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.settimeout(BOUND)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def ends_when(self, leave: Callable[[], object]) -> None:
        """Let the client leave, and wait until its run, which has no end of its own, has ended."""
        assert not self.service.ended
        leave()
        until(lambda: bool(self.service.ended))

    def settled(self, value: Callable[[], int], waits: Callable[[], bool] | None = None) -> None:
        """Wait until a number has begun and stopped moving, and whatever moves it says that it waits."""
        last, since = value(), time.monotonic()

        def stands_still() -> bool:
            nonlocal last, since
            now = value()
            if now != last or not (value() > 0 if waits is None else waits()):
                last, since = now, time.monotonic()
            return time.monotonic() - since > 0.25

        until(stands_still)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """The bytes of a plain request, to be written to a socket."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class QuickServer(LiveServer):
    """Ends without the pause that uvicorn makes; the real end is tested in a process of its own."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in [*self.servers, *(sockets or [])]:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        async with asyncio.timeout(20):
            while self.server_state.tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await self.lifespan.shutdown()


@contextlib.contextmanager
def serving(app: App | ServedProgram, *, wrap: ASGIApp | None = None, **kw: Any) -> Iterator[Live]:
    """Serve an app in a thread of its own, on a free port of 127.0.0.1."""
    if isinstance(app, ServedProgram):
        app = create_app(app, **kw)
    sock = listen("127.0.0.1", 0)
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()
    server = QuickServer(wrap or app, app, drain=0, on_ready=started.set)

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[sock])

    def run() -> None:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(main())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(BOUND), "the server did not start"
    try:
        yield Live(app, sock.getsockname()[1], loops[0])
    finally:
        server.stop()
        thread.join(BOUND)
        assert not thread.is_alive(), "the server did not stop"


def in_process(app: App) -> httpx.AsyncClient:
    """A client without a socket between, for virtual time; what it is given is whole when it comes."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


def sse(text: str) -> list[tuple[str, str, Any]]:
    """Parse a finished event stream: (event, id, data)."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            data = fields["data"]
            events.append((fields["event"], fields["id"], data if data == "[DONE]" else json.loads(data)))
    return events
