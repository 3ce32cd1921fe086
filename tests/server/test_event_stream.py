"""An event stream alone: its head, its heartbeats, and that they stand between whole pieces."""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace
from typing import Any

from starlette.types import Message

from dspy_live.server.errors import ClientGone
from dspy_live.server.runs.registry import RunRegistry
from dspy_live.server.transport.event_stream import HEARTBEAT, event_stream
from dspy_live.server.transport.heartbeat import Pulse
from dspy_live.server.transport.http import Request
from dspy_live.testing import virtual_time


class Client:
    """The other end of a request: what it was sent, and when it takes no more or leaves."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.left = asyncio.Event()
        self.stopped: list[ClientGone] = []
        app: Any = SimpleNamespace(common_headers=[], pulse=Pulse(10.0), runs=RunRegistry())
        self.request = Request(app, {"type": "http", "headers": []}, self._receive, self._send)

    async def _receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


@virtual_time
async def test_the_head_goes_out_with_the_first_piece_and_the_opening_before_it() -> None:
    client = Client()
    with event_stream(client.request, client.stopped.append, b"opening ") as stream:
        await asyncio.sleep(1)
        assert not client.request.began
        stream.write(b"piece ")
        await stream.end(b"end")
    assert client.sent[0]["type"] == "http.response.start"
    assert client.body == b"opening piece end"
    assert [message["more_body"] for message in client.sent[1:]] == [False]
    assert client.stopped == []


@virtual_time
async def test_a_silent_stream_has_heartbeats_and_a_busy_one_has_none() -> None:
    client = Client()
    with event_stream(client.request, client.stopped.append) as stream:
        for _ in range(20):
            stream.write(b"busy ")
            await asyncio.sleep(4)
        assert client.body == b"busy " * 20
        await asyncio.sleep(21)
        assert client.body == b"busy " * 20 + HEARTBEAT * 4
        await stream.end()
        await asyncio.sleep(20)
    assert client.body == b"busy " * 20 + HEARTBEAT * 4


@virtual_time
async def test_a_client_that_reads_too_slowly_gets_no_heartbeats() -> None:
    client = Client()
    with event_stream(client.request, client.stopped.append) as stream:
        stream.write(b"first ")
        client.reads.clear()
        stream.write(b"second ")
        await asyncio.sleep(100)
        client.reads.set()
        await stream.end(b"end")
    assert client.body == b"first second end"


@virtual_time
async def test_a_middleware_sees_the_requests_own_context() -> None:
    seen: list[str] = []
    owner = contextvars.ContextVar("owner", default="nobody")
    owner.set("the request")
    client = Client()

    async def send(message: Message) -> None:
        seen.append(owner.get())

    request = Request(client.request.app, client.request.scope, client.request.receive, send)
    with event_stream(request, client.stopped.append) as stream:
        contextvars.Context().run(stream.write, b"from an LM's socket")
        await asyncio.sleep(0)
        await stream.end()
    assert set(seen) == {"the request"}


@virtual_time
async def test_a_client_that_leaves_is_told_of_once_and_heartbeats_stop_with_the_stream() -> None:
    client = Client()
    with event_stream(client.request, client.stopped.append):
        client.left.set()
        await asyncio.sleep(0.1)
    await asyncio.sleep(100)
    assert len(client.stopped) == 1
    assert client.sent == []
