"""One client's connection: requests in, plans played out, with the right to stall and to cut."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import httptools

from dspy_live.simulator.plan import Action, error_body, response
from dspy_live.simulator.ticker import Ticker

_MOST_BODY = 64 * 1024 * 1024
"""Bytes of a request's body: more than any prompt, less than what would hurt this process."""
_AT_ONCE = 64
"""Actions that one stream may play before the others have their turn."""
_BYTES_AT_ONCE = 65536
"""Bytes after which a stream looks whether the socket has taken them."""
_LATE = 1.0
"""Seconds that a stream may lag behind its pace and still catch up; a longer pause just ends."""


@dataclass(slots=True)
class Request:
    """A whole HTTP request. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Handler(Protocol):
    """Answers a connection's requests, one at a time."""

    ticker: Ticker

    def opened(self, connection: Connection) -> None: ...

    def handle(self, connection: Connection, request: Request) -> None: ...

    def wrote(self, size: int) -> None: ...

    def closed(self, connection: Connection) -> None: ...


class Playback:
    """Plays one plan on a connection, no faster than its waits and than the socket takes it."""

    def __init__(self, connection: Connection, actions: Iterator[Action], ended: Callable[[Playback, bool], None]):
        self._connection = connection
        self._actions = actions
        self._ended = ended
        self._next: Action | None = None
        self._due = connection.now()
        self.chunks = 0
        self.tokens = 0
        self.over = False
        self.cut = False
        """True when the plan itself cut the connection."""

    def play(self) -> None:
        """Write what is due; then come back when more is."""
        if self.over or self._connection.full:
            return
        ready: list[bytes] = []
        now = self._connection.now()
        end = self._collect(now, ready)
        if end is not None:
            # The books come first: a client that has read the reply may look at them at once.
            self.cut = end == "cut"
            self._end(end == "whole")
        # One write for all that is due: a write costs more than making a chunk.
        self._connection.write(b"".join(ready))
        if self.cut:
            self._connection.cut()
        elif end is None and not self._connection.full and self._due != math.inf:
            self._connection.ticker.at(self._due, self.play)

    def _collect(self, now: float, ready: list[bytes]) -> Literal["whole", "cut"] | None:
        """Take the actions that are due, but not too many at once; tells how the plan ended, if it did."""
        size = 0
        for _ in range(_AT_ONCE):
            action = self._next or next(self._actions, None)
            if action is None:
                return "whole"
            if self._next is None:
                self._due = max(self._due, now - _LATE) + action.wait
            self._next = action
            if self._due > now + 0.0005 or size > _BYTES_AT_ONCE:
                return None
            self._next = None
            if action.data is None:
                return "cut"
            self.chunks += action.tokens > 0
            self.tokens += action.tokens
            size += len(action.data)
            ready.append(action.data)
        return None

    def stop(self) -> None:
        """The client is gone."""
        if not self.over:
            self._end(False)

    def _end(self, whole: bool) -> None:
        self.over = True
        self._actions = iter(())
        self._ended(self, whole)


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; pipelined requests wait for their turn."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self.now = loop.time
        self.ticker = handler.ticker
        self.full = False
        self.playback: Playback | None = None
        self._busy = False
        self._waiting: deque[Request] = deque()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._request = Request("", "")
        self._parts: list[bytes] = []
        self._size = 0

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is one in all but its class.
        self._transport = cast("asyncio.Transport", transport)
        self._handler.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self.reply(response(400, "Bad Request", error_body(f"no HTTP: {exc}", "invalid_request_error")))
            self.hang_up()
        except httptools.HttpParserUpgrade as exc:
            self._ask_again_without_upgrade(data[exc.args[0] :])

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.playback is not None:
            self.playback.stop()
        self._handler.closed(self)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self.playback is not None:
            self.playback.play()

    # Called by the parser

    def on_message_begin(self) -> None:
        self._request = Request("", "")
        self._parts, self._size = [], 0

    def on_url(self, url: bytes) -> None:
        self._request.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if not self._elsewhere() and self._request.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= _MOST_BODY:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._elsewhere():
            return
        request = self._request
        request.method = self._parser.get_method().decode("latin-1")
        request.body = b"".join(self._parts)
        if self._size > _MOST_BODY:
            self.reply(
                response(413, "Content Too Large", error_body("the body is over 64 MiB", "invalid_request_error"))
            )
            self.hang_up()
            return
        self._waiting.append(request)
        self._advance()

    def _elsewhere(self) -> bool:
        return bool(self._parser.should_upgrade()) and self._parser.get_method() != b"CONNECT"

    def _ask_again_without_upgrade(self, rest: bytes) -> None:
        # Java's clients ask for HTTP/2 with their first request, and the parser reads no body after such a head.
        request = self._request
        if not self._elsewhere():
            self.hang_up()
            return
        headers = {name: value for name, value in request.headers.items() if name not in ("upgrade", "connection")}
        lines = [f"{self._parser.get_method().decode()} {request.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received("\r\n".join([*lines, "", ""]).encode("latin-1") + rest)

    def _advance(self) -> None:
        while self._waiting and not self._busy and self._transport is not None:
            self._busy = True
            self._handler.handle(self, self._waiting.popleft())

    # Called by the handler

    @property
    def buffered(self) -> int:
        """Bytes written that the socket has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket; nothing happens when the client is gone."""
        if self._transport is not None and data:
            self._transport.write(data)
            self._handler.wrote(len(data))

    def reply(self, data: bytes) -> None:
        """Answer the request with a whole response."""
        self.write(data)
        self.idle()

    def play(self, actions: Iterator[Action], ended: Callable[[Playback, bool], None]) -> None:
        """Answer the request with a plan; ``ended`` hears whether it was played to its end."""

        def end(playback: Playback, whole: bool) -> None:
            self.playback = None
            ended(playback, whole)
            if whole:
                self.idle()

        self.playback = Playback(self, actions, end)
        self.playback.play()

    def idle(self) -> None:
        """The request is answered; the next may come."""
        self._busy = False
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._advance)

    def hang_up(self) -> None:
        """Close after what is written."""
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """Close at once, with what is not sent yet lost."""
        if self._transport is not None:
            self._transport.abort()
