"""In Ray Serve's proxy: what a client is told when the replica that answers it is lost.

Ray's proxy sends a request that no replica has begun to another one. Of a reply that had begun it sends no more, and
closes the connection. A middleware in the proxy ends such a stream in the words of its protocol instead.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dspy_live.core.errors import StreamBroken
from dspy_live.server.encoders.json import dumps
from dspy_live.server.errors import chat_error_object, error_object
from dspy_live.server.runs.last_words import last_words

LOST = "the replica that answered has ended, and the run with it"
INTERNAL_ERROR = 1011
"""The WebSocket close code of a server that can't go on, RFC 6455 section 7.4.1."""
_SEQUENCE = re.compile(rb'"sequence_number":(\d+)')


def middlewares() -> list[Middleware]:
    """Return what Ray Serve puts around its proxy's application."""
    return [Middleware(LostStreams)]


class LostStreams:
    """Ends replies that the application inside has left unfinished, unless their client has gone.

    A ``GET`` of a run's events stays cut: its client asks another replica for the rest, which may have it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with the application inside, and finish its reply."""
        kind = {"http": _HttpReply, "websocket": _SocketReply}.get(scope["type"])
        if kind is None:
            await self._app(scope, receive, send)
            return
        reply = kind(scope, receive, send)
        await self._app(scope, reply.receive, reply.send)
        await reply.finish()


class _Reply(ABC):
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._gone = self._over = False

    async def receive(self) -> Message:
        """Give the application the client's next message."""
        message = await self._receive()
        self._gone = self._gone or message["type"].endswith(".disconnect")
        return message

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Take the application's next message."""

    @abstractmethod
    async def finish(self) -> None:
        """Say what is missing when the application has returned."""


class _HttpReply(_Reply):
    _head: Message | None = None
    _last = b""

    async def send(self, message: Message) -> None:
        """Take the application's next message."""
        if message["type"] == "http.response.start":
            self._head = message
        elif message["type"] == "http.response.body":
            self._over = not message.get("more_body", False)
            self._last = message.get("body", b"") or self._last
        await self._send(message)

    async def finish(self) -> None:
        """Send an error for a reply that has not begun, and the last events of a stream that has no end."""
        if self._over or self._gone:
            return
        if self._head is None:
            await self._refuse()
            return
        headers = {bytes(name).lower(): bytes(value) for name, value in self._head["headers"]}
        made = _ends(self._scope["path"])
        streams = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        if made is not None and streams and self._scope["method"] == "POST":
            run_id = headers.get(b"x-run-id", b"").decode("latin-1")
            await self._send({"type": "http.response.body", "body": made(run_id, self._last), "more_body": False})

    async def _refuse(self) -> None:
        shape = chat_error_object if "/v1/" in self._scope["path"] else error_object
        body = dumps(shape(StreamBroken(LOST), None))
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": StreamBroken.status, "headers": head})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class _SocketReply(_Reply):
    _open = False

    async def send(self, message: Message) -> None:
        """Take the application's next message."""
        self._open = self._open or message["type"] == "websocket.accept"
        self._over = self._over or message["type"] == "websocket.close"
        await self._send(message)

    async def finish(self) -> None:
        """Close a connection that the application has left open, as one that broke."""
        if self._open and not self._over and not self._gone:
            await self._send({"type": "websocket.close", "code": INTERNAL_ERROR, "reason": LOST})


def _ends(path: str) -> Callable[[str, bytes], bytes] | None:
    """Return what ends a stream of this path, by its run's id and the last piece that was sent; ``None``: nothing."""
    for end, made in _ENDS.items():
        if path.endswith(end):
            return made
    return None


def _native(run_id: str, last: bytes) -> bytes:
    return last_words(StreamBroken(LOST), run_id)


def _chat(run_id: str, last: bytes) -> bytes:
    return b"data: " + dumps(chat_error_object(StreamBroken(LOST), run_id)) + b"\n\ndata: [DONE]\n\n"


def _responses(run_id: str, last: bytes) -> bytes:
    numbers = _SEQUENCE.findall(last)
    number = int(numbers[-1]) + 1 if numbers else 0
    data = {"type": "error", "code": "server_error", "message": LOST, "param": None, "sequence_number": number}
    return b"event: error\ndata: " + dumps(data) + b"\n\n"


def _ui_chat(run_id: str, last: bytes) -> bytes:
    return b"data: " + dumps({"type": "error", "errorText": LOST}) + b"\n\ndata: [DONE]\n\n"


def _agui(run_id: str, last: bytes) -> bytes:
    return b"data: " + dumps({"type": "RUN_ERROR", "message": LOST, "code": StreamBroken.code}) + b"\n\n"


_ENDS: dict[str, Callable[[str, bytes], bytes]] = {
    "/predict/stream": _native,
    "/predict": _native,
    "/v1/chat/completions": _chat,
    "/v1/responses": _responses,
    "/ui/chat": _ui_chat,
    "/agui": _agui,
}
"""By the end of the path. An answer of MCP is a message with the question's id, which nobody here has read."""
