"""One request and its reply on a connection of ours: ASGI's two functions, and plain calls that do the same.

https://asgi.readthedocs.io/en/latest/specs/www.html says what the functions do, RFC 9112 what goes over the wire.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Scope

from dspy_live.runtime.http.condition import Condition
from dspy_live.server.errors import ClientGone

if TYPE_CHECKING:
    from dspy_live.core.outlet import Borrower
    from dspy_live.server.transport.connection import Connection

log = logging.getLogger("uvicorn.error")

Headers = Sequence[tuple[bytes, bytes]]
CLOSE: tuple[bytes, bytes] = (b"connection", b"close")

MOST_UNREAD = 65_536
"""Bytes of a request's body that wait for the application; then the socket is not read."""

_BODILESS = (204, 304)
_STATUS = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in http.HTTPStatus}
_CONTROLS = bytes({*range(32), 127} - {ord("\t")})
_FAILED = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"21"), CLOSE]


class Exchange:
    """A request and its reply.

    ``receive`` and ``send`` are ASGI's. An application that got them as they are may use the plain calls instead:
    :meth:`whole_body`, :attr:`on_gone`, and to reply :meth:`reply`, or :meth:`begin`, :meth:`write` and :meth:`end`.
    """

    __slots__ = (
        "_borrower",
        "_chunked",
        "_connection",
        "_continued",
        "_held",
        "_left",
        "_news",
        "_parts",
        "_put",
        "_unread",
        "_waiting",
        "began",
        "complete",
        "gone",
        "keep_alive",
        "on_gone",
        "scope",
        "sent",
        "task",
        "unfinished",
    )

    def __init__(self, connection: Connection, scope: Scope, keep_alive: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.task: asyncio.Task[None] | None = None
        self.began = False
        self.complete = False
        self.gone = False
        """True when the client has left before its reply was complete."""
        self.on_gone: Callable[[ClientGone], object] | None = None
        """Called once when the client leaves before its reply is complete."""
        self._connection = connection
        self._continued = False
        self._parts: list[bytes] = []
        self._unread = 0
        self.unfinished = True
        """True while more of the request's body is to come."""
        self._news = False
        self._waiting: Condition | None = None
        self._chunked = False
        self._left: int | None = None
        self._put: Callable[[bytes], object] = connection.write if scope["method"] != "HEAD" else _drop
        self._borrower: Borrower | None = None
        self._held = b""
        self.sent = 0
        """Bytes of the body that were written in pieces."""

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer; what it leaves undone ends the connection."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as exc:
            log.error("Exception in ASGI application\n", exc_info=exc)
        else:
            if not self.complete and not self.gone:
                log.error("ASGI callable returned without completing response.")
        finally:
            if not self.complete and not self.gone:
                self._give_up()
            self._connection.left(self)

    # The request, for the connection.

    def feed(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        if not self.complete:
            self._parts.append(data)
            self._unread += len(data)
            if self._unread > MOST_UNREAD:
                self._connection.pause_reading()
            self._news = True
            self._wake()

    def feed_end(self) -> None:
        """The request's body has ended."""
        if not self.complete:
            self.unfinished = False
            self._news = True
            self._wake()

    def lost(self) -> None:
        """The connection is gone."""
        self._take_back()
        self._put = _drop
        if not self.complete and not self.gone:
            self.gone = True
            if self.on_gone is not None:
                self.on_gone(ClientGone("the client closed its connection"))
        self._wake()

    # The request, for the application.

    def whole_body(self) -> bytes | None:
        """Return the body where all of it is there and none was received; else ``None``."""
        return None if self.unfinished or not self._news else self._take()

    async def receive(self) -> Message:
        """Return ASGI's next message."""
        if self.unfinished and not self._continued:
            self._continue()
        while not (self.gone or self.complete or self._news):
            self._connection.resume_reading()
            if self._waiting is None:
                self._waiting = Condition()
            await self._waiting.wait()
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._take(), "more_body": self.unfinished}

    def _continue(self) -> None:
        self._continued = True
        asked = [value.lower() for name, value in self.scope["headers"] if name == b"expect"]
        if (
            b"100-continue" in asked
            and self.scope["http_version"] != "1.0"
            and not self.began
            and not self._connection.is_closing
        ):
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take(self) -> bytes:
        self._news = False
        body = b"".join(self._parts)
        self._parts.clear()
        if self._unread > MOST_UNREAD:
            self._connection.resume_reading()
        self._unread = 0
        return body

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.notify()

    # The reply.

    @property
    def idle(self) -> bool:
        """True while the client takes what is written."""
        return not self._connection.writing_paused

    async def room(self) -> None:
        """Wait until the client takes more, or is gone."""
        await self._connection.writable()

    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a whole reply; ``headers`` have no length and no coding."""
        if not self.gone:
            self.began = True
            length = b"content-length: %d\r\n" % len(body)
            if status in _BODILESS:
                length, self._put = b"", _drop
            head = self._head(status, headers, length)
            self._connection.write(head + body if self._put is not _drop else head)
            self._finish()

    def begin(self, status: int, headers: Headers, *pieces: bytes) -> bool:
        """Write the head of a reply whose length is not known, and with it the body's first pieces, none of them empty.

        ``headers`` have no length and no coding. False asks to pause until :meth:`room`.
        """
        if self.gone:
            return self.write(b"".join(pieces))  # which is counted
        self.began = True
        self._left = None
        self._chunked = self.scope["http_version"] != "1.0"  # which knows no chunks: the connection's end ends it
        head = self._head(status, headers, self._coding(status))
        body = b"".join(map(self._framed, pieces))
        self._connection.write(head + body if self._put is not _drop else head)
        if not self.unfinished:
            self._connection.rest(self)
        return not self._connection.writing_paused

    def write(self, piece: bytes) -> bool:
        """Write a piece of the body, which is not empty. False asks to pause until :meth:`room`."""
        size = len(piece)
        self.sent += size
        self._put(b"%x\r\n%b\r\n" % (size, piece) if self._chunked else piece)
        return not self._connection.writing_paused

    def write_soon(self, piece: bytes) -> bool:
        """Write a piece together with what is written next, at the end of the loop's turn at the latest."""
        if self._put is not self._connection.write:  # lent, dropped, or one is held already
            return self.write(piece)
        self._held, self._put = self._framed(piece), self._put_after_held
        self._connection.call_soon(self._put_held)
        return not self._connection.writing_paused

    def _put_after_held(self, data: bytes) -> None:
        held, self._held, self._put = self._held, b"", self._connection.write
        self._put(held + data)

    def _put_held(self) -> None:
        if self._held and not self.gone:
            self._put_after_held(b"")

    def _framed(self, piece: bytes) -> bytes:
        """Count a piece of the body and return it as it goes over the wire."""
        self.sent += len(piece)
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece

    def sent_so_far(self) -> int:
        """Return how many bytes of the body were written in pieces, those of a borrower too."""
        return self.sent if self._borrower is None else self.sent + self._borrower.sent()

    def lend(self, borrower: Borrower) -> int | None:
        """Lend the socket for pieces of the body: return its descriptor, or ``None`` where that can't be now.

        The borrower writes them in the chunked coding and gives the socket back by :meth:`returned`. Whatever is
        written here meanwhile takes it back before.
        """
        if not self._chunked or self.complete or self.gone or self._borrower is not None or self._put is _drop:
            return None
        self._put_held()
        descriptor = self._connection.lend()
        if descriptor is not None:
            self._borrower, self._put = borrower, self._take_back_and_put
        return descriptor

    def returned(self, size: int, unsent: bytes) -> None:
        """Take the socket back, with ``size`` bytes of the body written to it; ``unsent`` are to be written first."""
        self._borrower = None
        self.sent += size
        self._put = _drop if self.gone else self._connection.write
        if self._connection.is_closing:
            return
        if unsent:
            self._put(unsent)
        self._connection.resume_reading()

    def _take_back(self) -> None:
        if self._borrower is not None:
            self._borrower.take_back()

    def _take_back_and_put(self, data: bytes) -> None:
        self._take_back()
        self._put(data)

    def end(self, piece: bytes = b"") -> None:
        """Write the last piece of the body."""
        if self.gone:
            return
        rest = self._framed(piece) if piece else b""
        if self._chunked:
            rest += b"0\r\n\r\n"
        if rest:
            self._put(rest)
        self._finish()

    async def flushed(self) -> None:
        """All was written to the transport, in the call."""

    def close(self) -> None:
        """Nothing waits here that could be dropped."""

    async def send(self, message: Message) -> None:
        """Send one of ASGI's messages; it waits while the client reads too slowly."""
        if self._connection.writing_paused and not self.gone:
            await self._connection.writable()
        if self.gone:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.began:
            self._start(message["status"], list(message.get("headers", ())))
        elif kind == "http.response.body" and self.began and not self.complete:
            self._send_body(bytes(message.get("body", b"")), message.get("more_body", False))
        else:
            raise RuntimeError(f"the ASGI message {kind!r} has no place here in a reply")

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin a reply whose headers may say how its body is framed."""
        self.began = True
        framing = b""
        for name, value in headers:
            if name.lower() == b"content-length":
                self._left = int(value)
        headers = [header for header in headers if header[0].lower() != b"transfer-encoding"]
        if status in _BODILESS:
            self._put = _drop
        if self._left is None:
            self._chunked = self.scope["http_version"] != "1.0"
            framing = self._coding(status)
        self._connection.write(self._head(status, headers, framing))

    def _send_body(self, body: bytes, more: bool) -> None:
        if self._left is not None and self._put is not _drop:
            self._left -= len(body)
            if self._left < 0 or (self._left > 0 and not more):
                self.keep_alive = False
                raise RuntimeError(
                    f"a reply's body must be as long as its content-length; {abs(self._left)} bytes differ"
                )
        if not more:
            self.end(body)
        elif body:
            self.write(body)

    def _coding(self, status: int) -> bytes:
        if status in _BODILESS:
            self._chunked, self._put = False, _drop
        elif not self._chunked:
            self.keep_alive = False
        return b"transfer-encoding: chunked\r\n" if self._chunked else b""

    def _head(self, status: int, headers: Headers, framing: bytes) -> bytes:
        lines = b"\r\n".join([*map(b": ".join, headers), b""])
        if len(lines) - len(lines.translate(None, _CONTROLS)) != 2 * len(headers):  # each has its own line break
            raise RuntimeError("a header of a reply has a line break or another control character in it")
        if b"connection" in lines.lower() and any(
            n.lower() == b"connection" and b"close" in v.lower() for n, v in headers
        ):
            self.keep_alive = False
        elif not self.keep_alive:
            framing += b"connection: close\r\n"
        first = _STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status
        return b"%b%b%b%b\r\n" % (first, self._connection.common_lines(), lines, framing)

    def _finish(self) -> None:
        self.complete = True
        self._wake()
        self._connection.replied(self)

    def _give_up(self) -> None:
        self._take_back()
        self._put_held()
        if self.began:
            self._connection.close()
        else:
            self._start(500, _FAILED)
            self._send_body(b"Internal Server Error", False)


def _drop(data: bytes) -> None:
    """What is written in reply to HEAD, and to a client that has gone."""


def exchange_of(receive: Any, send: Any) -> Exchange | None:
    """Return the exchange whose ``receive`` and ``send`` these are; ``None`` under a middleware or another server."""
    exchange = getattr(send, "__self__", None)
    if isinstance(exchange, Exchange) and getattr(receive, "__self__", None) is exchange:
        return exchange
    return None
