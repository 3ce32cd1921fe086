"""The connection of a client that may mean no good: a request's head has a largest size, and a longest time to come.

It is what uvicorn makes for each client (``uvicorn.Config(http=Protocol)``), in place of its own: a stream's route has
the connection's transport, and no message, task or timer stands between.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from starlette.types import Scope
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from dspy_live.server.transport.connection import MOST_TOGETHER, Connection
from dspy_live.server.transport.exchange import Exchange
from dspy_live.server.transport.heads import MOST_HEAD as MOST_HEAD
from dspy_live.server.transport.heads import (
    HeadTooLarge,
    TooManyTogether,
    refusal,
    size_of,
    wants_websocket,
    without_upgrade,
    written,
)

HEAD_SECONDS = 30.0
"""Seconds for a request's head to come, from the connection's start or from the head's first byte."""


_ASGI = {"version": "3.0", "spec_version": "2.3"}
_LONGEST = 200
"""Bytes of an address whose parts are remembered; clients choose them, and their length."""


class Protocol(Connection):
    """Reads a server's connection: bytes to heads and bodies, and to an :class:`Exchange` for each."""

    head_seconds = HEAD_SECONDS

    __slots__ = (
        "_app_state",
        "_client",
        "_feed",
        "_first",
        "_head",
        "_headers",
        "_in_body",
        "_in_head",
        "_parser",
        "_piece",
        "_scheme",
        "_server",
        "_url",
    )

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, _loop)
        self._app_state = app_state
        self._in_head = True
        self._in_body = False
        self._piece = 0  # bytes of what came last
        self._first = 0  # bytes of the piece that a head began in
        self._head = 0  # bytes of the pieces since then, or since the last piece of a body
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._new_parser()

    def _new_parser(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(self)  # None while there is nothing to read
        # Bytes after a request that asked for the connection's end must not spoil the reply to it.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed: Any = self._parser.feed_data

    @property
    def awaits_head(self) -> bool:
        """True while a request is to be expected: the connection is new, or a request's head has come in part."""
        return self._in_head and not self._transport.is_closing()

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request's head."""
        super().connection_made(transport)
        self._server = get_local_addr(transport)
        self._client = get_remote_addr(transport)
        self._scheme = "https" if is_ssl(transport) else "http"
        self._shared.heads.start(self, self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the parser, which holds this connection: the two would wait for the garbage collector."""
        super().connection_lost(exc)
        del self._parser, self._feed

    def eof_received(self) -> None:
        """The client has closed its side, and with it the connection."""

    def data_received(self, data: bytes) -> None:
        """Take what came. What goes on without an end is bounded: a head, and what stands between a body's chunks."""
        self._shared.unused.stop(self)
        if self._feed is None:
            self._new_parser()
        rest: bytes | None = data
        while rest is not None:
            self._piece = len(rest)
            try:
                self._feed(rest)
            except httptools.HttpParserError:
                self._refuse_bytes()
                return
            except httptools.HttpParserUpgrade as exc:
                rest = self._upgrade(rest[exc.args[0] :])
                if rest is None:
                    return
            else:
                break
        if self._in_head or self._in_body:
            self._head += self._piece
            if self._head > MOST_HEAD:
                self._refuse_bytes()
            elif self._in_head and self not in self._shared.heads and not self._transport.is_closing():
                self._shared.heads.start(self, self.head_seconds)
        exchange = self._exchange
        unused = not self._in_head and exchange is not None and exchange.complete
        if unused and not self._transport.is_closing():
            self._shared.unused.start(self, self._config.timeout_keep_alive)

    def rest(self, exchange: Exchange) -> None:
        """Let go of the request's headers and of the parser: a stream may last for hours."""
        exchange.scope["headers"].clear()
        if exchange is self._exchange and exchange.keep_alive and not (self._in_head or self._in_body):
            self._headers = []
            self._parser = self._feed = None

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._first = self._piece
        self._head = -self._piece
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request's address."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers, which come after the list was handed on, are dropped."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head has come: let the application answer, after the requests that came before."""
        most = self._first + self._head + self._piece
        if most > MOST_HEAD and size_of(self._url, self._headers) > MOST_HEAD:
            raise HeadTooLarge
        if self._queued and len(self._queued) >= MOST_TOGETHER:
            raise TooManyTogether
        parser = self._parser
        upgrades = parser.should_upgrade()
        if upgrades and not self._should_upgrade():
            return
        self._in_head = False
        self._shared.heads.stop(self)
        if not upgrades:
            version = parser.get_http_version()
            scope = self._scope(version)
            self._ask(Exchange(self, scope, version != "1.0" and parser.should_keep_alive()))
            self._in_body = True

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._head = -self._piece
        if self._exchange is not None:
            self._exchange.feed(body)

    def on_message_complete(self) -> None:
        """A body has come to its end."""
        if self._exchange is not None and not self._parser.should_upgrade():
            self._in_body = False
            self._exchange.feed_end()
            if self._lingers:
                self._transport.close()

    def _scope(self, version: str) -> Scope:
        root = self._config.root_path
        parts = _parts_kept if len(self._url) <= _LONGEST else _parts
        path, raw_path, query = parts(self._url, root)
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "method": self._parser.get_method().decode("ascii"),
            "root_path": root,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self._headers,
            "state": self._app_state.copy(),
        }

    # Other protocols, and what is none.

    def _should_upgrade(self) -> bool:
        # A WebSocket begins with GET, in HTTP/1.1 and after the replies to all requests before. What asks for one in
        # another way is answered as if it had not asked.
        parser, before = self._parser, self._exchange
        takes = parser.get_method() == b"GET" and self._config.ws_protocol_class is not None
        fits = takes and parser.get_http_version() != "1.0" and (before is None or before.complete)
        return fits and wants_websocket(self._headers)

    def _upgrade(self, rest: bytes) -> bytes | None:
        """Turn to another protocol, or return the bytes to read in place of a head that asks for one."""
        method, version = self._parser.get_method(), self._parser.get_http_version()
        if self._should_upgrade():
            self._speak_websocket(written(method, self._url, version, self._headers))
        elif method == b"CONNECT":  # which is another protocol whatever its headers say
            self._refuse_bytes()
        else:
            # Java's clients ask for HTTP/2 with their first request, whatever it is. The parser reads no body after
            # such a head (https://github.com/Kludex/uvicorn/issues/2722): a new one is given the head without the wish.
            self._new_parser()
            return written(method, self._url, version, without_upgrade(self._headers)) + rest
        return None

    def _speak_websocket(self, head: bytes) -> None:
        make: Any = self._config.ws_protocol_class
        protocol = make(config=self._config, server_state=self._state, app_state=self._app_state)
        self._leave()
        del self._parser, self._feed
        protocol.connection_made(self._transport)
        protocol.data_received(head)
        self._transport.set_protocol(protocol)

    def _refuse_bytes(self) -> None:
        """Say in JSON what is wrong with the request, and hang up."""
        if self._in_body and self._head > MOST_HEAD:
            self._refuse("400 Bad Request", "bad_request", f"the trailers are over {MOST_HEAD} bytes")
        elif self._queued and len(self._queued) >= MOST_TOGETHER:
            self._refuse("400 Bad Request", "bad_request", f"over {MOST_TOGETHER} requests came together")
        elif self._in_head and max(self._head, size_of(self._url, self._headers)) > MOST_HEAD:
            self._refuse("431 Request Header Fields Too Large", "too_large", f"the head is over {MOST_HEAD} bytes")
        else:
            self._refuse("400 Bad Request", "bad_request", "this is no valid HTTP/1.1 request")

    def _refuse(self, status: str, kind: str, message: str) -> None:
        self._shared.heads.stop(self)
        self._feed = _ignore
        within, self._in_head, self._in_body = self._in_body, False, False
        self._end_with(refusal(status, kind, message), within)

    def give_up(self) -> None:
        """The time for a head is over; while a reply is under way, the client need not hurry."""
        if self._in_head and not self._transport.is_closing():
            if self._exchange is not None and not self._exchange.complete:
                self._shared.heads.start(self, self.head_seconds)
            elif self._first:
                self._refuse(
                    "408 Request Timeout", "request_timeout", f"the head did not come in {self.head_seconds:g} s"
                )
            else:
                self._transport.close()


def _parts(url: bytes, root: str) -> tuple[str, bytes, bytes]:
    """Return the path of a request's address below ``root``, the same as it came, and the query."""
    parts = httptools.parse_url(url)
    path = parts.path.decode("ascii")
    return root + (unquote(path) if "%" in path else path), root.encode("ascii") + parts.path, parts.query or b""


_parts_kept = lru_cache(maxsize=256)(_parts)


def _ignore(data: object) -> None:
    """What comes after bytes that were no request."""
