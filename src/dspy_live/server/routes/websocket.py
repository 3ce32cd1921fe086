"""``WS /ws``: one socket, two protocols. What the first frame looks like decides which."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from starlette.types import Receive, Scope, Send

from dspy_live.core.errors import LiveError
from dspy_live.runtime.scope import Scope as CancelScope
from dspy_live.server.encoders.json import dumps
from dspy_live.server.errors import ClientGone, error_headers, error_object, error_status, public_error
from dspy_live.server.routes.ws_plain import PlainSession
from dspy_live.server.routes.ws_typed import TypedSession
from dspy_live.server.served import ServedProgram, find
from dspy_live.server.transport.http import JSON, by_name
from dspy_live.server.transport.writer import Writer

if TYPE_CHECKING:
    from dspy_live.server.app import App

TEXT_ONLY = 1003


class Session(Protocol):
    """One protocol on one socket."""

    async def take(self, text: str) -> None:
        """Take a frame of the client's; never waits for a run."""

    async def close(self) -> None:
        """Stop all that is under way and wait for its end."""


class Socket:
    """The sending side of an accepted WebSocket.

    Args:
        send: ASGI's.
        lost: called with a :class:`ClientGone` when a write fails.
        trace: the ``traceparent`` of its handshake, which its runs become a part of.
    """

    __slots__ = ("_writer", "closed", "drop", "room", "trace")

    def __init__(self, send: Send, lost: Callable[[ClientGone], object], trace: str = "") -> None:
        self._writer = Writer(send, lost)
        self.trace = trace
        self.closed = False
        self.room = self._writer.room
        self.drop = self._writer.close

    def text(self, text: str) -> bool:
        """Send a text frame. False asks to pause until ``room()``."""
        return self._writer.write({"type": "websocket.send", "text": text})

    async def close(self, code: int, reason: str = "") -> None:
        """Close the socket, once. The reason is cut to the 123 bytes that the protocol has for it."""
        self.closed = True
        short = reason.encode()[:123].decode(errors="ignore")
        await self._writer.end({"type": "websocket.close", "code": code, "reason": short})

    async def fail(self, error: LiveError) -> None:
        """Close with the code of an error: 4000 and its HTTP status."""
        message = error_object(error, None)["error"]["message"]
        await self.close(4000 + error_status(error), f"{error.code}: {message}")


async def websocket(app: App, scope: Scope, receive: Receive, send: Send, name: str | None) -> tuple[int, str]:
    """Serve one WebSocket until either side closes it; then stop and wait for its runs.

    Returns the HTTP status of its handshake and the name of its key.
    """
    await receive()  # websocket.connect
    try:
        app.origins.check(by_name(scope["headers"]))
        key = app.keys.check(scope, query=True)
        if name is not None:  # else a typed frame may still name a program that the key may run
            app.keys.check_program(key, name)
        program = app.default if name is None else find(app.programs, name)
    except LiveError as exc:
        return await reject(scope, send, exc), ""
    await send({"type": "websocket.accept", "headers": list(app.common_headers)})
    lost = CancelScope()
    trace = next((value.decode("latin-1") for header, value in scope["headers"] if header == b"traceparent"), "")
    socket = Socket(send, lost.fail, trace)
    session: Session | None = None
    try:
        with lost:
            while not socket.closed:
                message: Any = await receive()
                if message["type"] == "websocket.disconnect":
                    break
                text = message.get("text")
                if text is None:
                    await socket.close(TEXT_ONLY, "this protocol has text frames only")
                    break
                if session is None:
                    session = open_session(app, program, key, socket, text)
                await session.take(text)
    except ClientGone:
        pass
    finally:
        socket.drop()
        if session is not None:
            await session.close()
    return 101, key


def open_session(app: App, program: ServedProgram, key: str, socket: Socket, first: str) -> Session:
    """Return the session for a socket's first frame: typed if it begins as a JSON object does."""
    if first.lstrip()[:1] == "{":
        return TypedSession(app, program, key, socket)
    return PlainSession(app, program, key, socket)


async def reject(scope: Scope, send: Send, exc: LiveError) -> int:
    """Refuse a WebSocket before it is accepted: with an HTTP error where the server can, else a close.

    Returns the HTTP status.
    """
    error = public_error(exc, None)
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 4000 + error_status(error), "reason": error.code})
        return error_status(error)
    body = dumps(error_object(error, None))
    headers = [(b"content-length", b"%d" % len(body)), JSON, *error_headers(error)]
    await send({"type": "websocket.http.response.start", "status": error_status(error), "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
    return error_status(error)
