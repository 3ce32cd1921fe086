"""The connection of a client that may mean no good: a request's head has a largest size, and a longest time to come."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from dspy_live.server.encoders.json import dumps

MOST_HEAD = 65_536
"""Bytes of a request's line and headers: four times what browsers and balancers send at most."""

HEAD_SECONDS = 30.0
"""Seconds for a request's head to come, from the connection's start or from the head's first byte."""


class HeadTooLarge(Exception):
    """The request's line and headers are over :data:`MOST_HEAD` bytes."""


class Http10Cycle(RequestResponseCycle):
    """uvicorn's reply over HTTP/1.0, which knows no chunks: a body without a length ends with the connection."""

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message without the framing of HTTP/1.1."""
        if message["type"] == "http.response.start":
            self._without_length = not any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if self._without_length:
                self.chunked_encoding = False
        elif message["type"] == "http.response.body" and self._without_length:
            self.expected_content_length = len(message.get("body", b""))  # uvicorn holds each piece against it
        await super().send(message)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with bounds on the head; bodies have theirs in the application."""

    head_seconds = HEAD_SECONDS
    _in_head = True
    _head = 0
    _head_timer: asyncio.TimerHandle | None = None

    @property
    def awaits_head(self) -> bool:
        """True while a request is to be expected: the connection is new, or a request's head has come in part."""
        return self._in_head and not self.transport.is_closing()

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request's head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head has come."""
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MOST_HEAD:
            raise HeadTooLarge
        if self._stays_http():
            return
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0":
            self.cycle.__class__ = Http10Cycle

    def on_message_complete(self) -> None:
        """A body has come to its end."""
        if not self._stays_http():
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Take what came; a head that goes on is bounded."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        except httptools.HttpParserUpgrade as exc:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self.parser.get_method() == b"CONNECT":  # which is another protocol whatever its headers say
                self.send_400_response("")
            else:
                self._ask_again_without_upgrade(data[exc.args[0] :])
            return
        if not self._in_head or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > MOST_HEAD:
            self.send_400_response("")
        elif self._head_timer is None:
            self._start_timer()

    def _should_upgrade(self) -> bool:
        # A WebSocket begins with GET. What asks for one in another way is answered as if it had not asked.
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _stays_http(self) -> bool:
        return bool(self.parser.should_upgrade()) and not self._should_upgrade()

    def _ask_again_without_upgrade(self, rest: bytes) -> None:
        # Java's clients ask for HTTP/2 with their first request, whatever it is. The parser reads no body after such
        # a head (https://github.com/Kludex/uvicorn/issues/2722), so a new one is given the head without the wish.
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(one for one in value.split(b",") if one.strip().lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)

    def send_400_response(self, msg: str) -> None:
        """Say in JSON what is wrong with the request, and hang up."""
        self._stop_timer()
        come = len(self.url or b"") + sum(map(_size, self.headers or ()))
        large = self._in_head and max(self._head, come) > MOST_HEAD
        if large:
            self._refuse("431 Request Header Fields Too Large", "too_large", f"the head is over {MOST_HEAD} bytes")
        else:
            self._refuse("400 Bad Request", "bad_request", "this is no valid HTTP/1.1 request")

    def _refuse(self, status: str, kind: str, message: str) -> None:
        body = dumps({"error": {"type": kind, "message": message, "run_id": None}})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            if self._head:
                self._refuse(
                    "408 Request Timeout", "request_timeout", f"the head did not come in {self.head_seconds:g} s"
                )
            else:
                self.transport.close()


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1]) + 4
