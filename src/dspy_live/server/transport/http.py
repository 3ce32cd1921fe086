"""Requests and replies on raw ASGI: no objects between a route and the socket but these."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Receive, Scope, Send

from dspy_live.core.call import new_id
from dspy_live.core.errors import LiveError, TooLarge
from dspy_live.server.encoders.json import dumps
from dspy_live.server.errors import BadRequest, ClientGone, RequestTimeout, error_headers, error_object, error_status
from dspy_live.server.transport import connection
from dspy_live.server.transport.exchange import CLOSE as CLOSE
from dspy_live.server.transport.exchange import Exchange, exchange_of

if TYPE_CHECKING:
    from dspy_live.server.app import App
    from dspy_live.server.runs.totals import RunTotals

Headers = list[tuple[bytes, bytes]]
ErrorObject = Callable[[LiveError, str | None], dict[str, Any]]
JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")


class Request:
    """One HTTP request and its reply.

    ``run_id`` is the id of the run that it becomes, if it becomes one. ``status`` is 0 until the reply's head is sent;
    that, ``sent`` (bytes of the body), ``program`` and ``totals`` are for the access log. ``reply_headers`` are a
    route's own, for whatever the reply becomes. ``exchange`` is the connection's own side of it, where nothing stands
    between: plain calls then do what ASGI's two functions do.
    """

    __slots__ = (
        "_asgi",
        "app",
        "born",
        "cors",
        "error_object",
        "exchange",
        "headers",
        "key",
        "params",
        "program",
        "reply_headers",
        "run_id",
        "scope",
        "sent",
        "status",
        "totals",
        "with_run",
    )

    def __init__(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        self.app = app
        self.scope = scope
        self.exchange = exchange_of(receive, send)
        self._asgi = (receive, send) if self.exchange is None else None
        self.headers = by_name(scope["headers"])
        """Until the reply's head is sent."""
        self.params: dict[str, str] = {}
        self.run_id = new_id()
        self.with_run = False
        self.born = time.perf_counter()
        self.key = ""
        self.cors: Headers = []
        self.reply_headers: Headers = []
        self.status = 0
        self.sent = 0
        self.program = ""
        self.totals: RunTotals | None = None
        self.error_object: ErrorObject = error_object

    @property
    def began(self) -> bool:
        """True once the reply's head was sent, from when on an error can't change the status any more."""
        return self.status > 0

    @property
    def receive(self) -> Receive:
        """ASGI's function that returns the next message."""
        return self._asgi[0] if self._asgi is not None else self._own.receive

    @property
    def send_raw(self) -> Send:
        """ASGI's function that sends a message."""
        return self._asgi[1] if self._asgi is not None else self._own.send

    @property
    def _own(self) -> Exchange:
        assert self.exchange is not None
        return self.exchange

    def header(self, name: bytes) -> str | None:
        """Return a header's value (the name in lower case), the first of several, or ``None``."""
        value = self.headers.get(name)
        return None if value is None else str(value, "latin-1")

    async def body(self) -> bytes:
        """Read the body.

        Raises :class:`TooLarge` as soon as it is known to be over the limit, :class:`RequestTimeout`
        for one that comes too slowly.
        """
        coding = self.headers.get(b"content-encoding")
        if coding and coding != b"identity":
            named = coding[:40].decode("latin-1")
            raise BadRequest(f"the body is compressed ({named}); this server takes it as it is only")
        limit = self.app.max_body
        body = None if self.exchange is None else self.exchange.whole_body()
        if (int(self._length() or 0) if body is None else len(body)) > limit:
            raise TooLarge(f"the body is over the limit of {limit} bytes")
        if body is not None:
            return body
        try:
            async with asyncio.timeout(self.app.body_timeout):
                return await self._read(limit)
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self.app.body_timeout:g} s") from None

    async def _read(self, limit: int) -> bytes:
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False) and len(message["body"]) <= limit:
            return bytes(message["body"])
        parts: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise TooLarge(f"the body is over the limit of {limit} bytes")
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await self.receive()
        raise ClientGone("the client left before the body had arrived")

    async def json(self) -> dict[str, Any]:
        """Read the body as a JSON object."""
        return parse_object(await self.body(), "the body")

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return the headers of the reply, which the caller sends now."""
        self.status = status
        self.headers = {}  # a stream may last for hours
        app = self.app
        head = [*app.common_headers, *headers]
        if self.with_run:
            head.append((b"x-run-id", self.run_id.encode()))
        head += self.reply_headers
        if self.with_run and self.key and status != 429:
            head += app.keys.headers(self.key)
        head += self.cors
        if app.runs.leaving and self.scope.get("http_version", "1.1").startswith("1"):
            head.append(CLOSE)
        return head

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the reply's head."""
        await self.send_raw({"type": "http.response.start", "status": status, "headers": self.head(status, headers)})

    async def reply_empty(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        """Send a reply without a body."""
        await self.start(status, headers)
        await self.write(b"", False)

    async def write(self, body: bytes, more: bool = True) -> None:
        """Send a piece of the body; waits while the client reads too slowly."""
        self.sent += len(body)
        await self.send_raw({"type": "http.response.body", "body": body, "more_body": more})

    async def reply(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send a whole reply."""
        exchange = self.exchange
        if exchange is None:
            await self.start(status, [(b"content-length", b"%d" % len(body)), *headers])
            await self.write(body, False)
            return
        if not exchange.idle:
            await exchange.room()
        self.sent += len(body)
        exchange.reply(status, self.head(status, headers), body)

    async def reply_json(self, value: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """Send a value as JSON."""
        await self.reply(status, dumps(value), JSON, *headers)

    async def reply_error(self, error: LiveError) -> None:
        """Send an error as JSON; after one about the body the connection is closed."""
        body = dumps(self.error_object(error, self.run_id if self.with_run else None))
        headers = [JSON, *error_headers(error)]
        if self.with_run:
            headers.append((b"server-timing", b"run;dur=%.3f" % ((time.perf_counter() - self.born) * 1000)))
        if not isinstance(error, (TooLarge, RequestTimeout)):
            await self.reply(error_status(error), body, *headers)
            return
        length = (b"content-length", b"%d" % len(body))
        await self.start(error_status(error), [length, *headers, CLOSE])
        await self.write(body)
        await self._linger()
        await self.write(b"", False)

    async def _linger(self) -> None:
        # Closing at once would reset the connection and the client, still sending, might never see the
        # reply. So what it sends is thrown away until it stops, for a moment at most.
        try:
            async with asyncio.timeout(connection.LINGER):
                while (message := await self.receive())["type"] == "http.request" and message.get("more_body"):
                    pass
        except TimeoutError:
            pass

    def _length(self) -> str | None:
        value = self.header(b"content-length")
        if value is not None and not value.isdigit():
            raise BadRequest("Content-Length must be a whole number")
        return value


def by_name(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Return headers by their names in lower case; of several of one name the first."""
    return dict(reversed(list(headers)))


def parse_object(data: bytes | str, what: str) -> dict[str, Any]:
    """Parse a JSON object; raise :class:`BadRequest` that says what is wrong and where."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise BadRequest(f"{what} must be a JSON object, but is not valid JSON: {exc.msg} at {where}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object, not {_json_type(value)}")
    return value


def _json_type(value: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
