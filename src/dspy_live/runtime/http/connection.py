"""One connection: bytes from a socket to one exchange after another."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import httptools

if TYPE_CHECKING:
    from dspy_live.runtime.http.pool import Route
    from dspy_live.runtime.http.splice import Splice

HEAD_LIMIT = 64 * 1024
"""Most bytes of a reply's head, and of anything that is not body, that we take: a real head has about 1 KB."""

_BODYLESS = (204, 304)


class Reader(Protocol):
    """Takes the parts of a reply from a connection; an exchange."""

    def begin(self, status: int, headers: dict[str, str]) -> None: ...
    def received(self, data: bytes) -> None: ...
    def finished(self) -> None: ...
    def malformed(self, reason: str) -> None: ...
    def lost(self, reason: str, received: bool) -> None: ...


class Connection(asyncio.Protocol):
    """An HTTP/1.1 client connection. It serves one :class:`Reader` at a time.

    ``on_lost`` is called once, when the socket is gone, whichever side closed it.
    """

    __slots__ = (
        "__weakref__",
        "_aligned",
        "_complete",
        "_fault",
        "_feed",
        "_headed",
        "_headers",
        "_middle",
        "_on_lost",
        "_other",
        "_parser",
        "_parts",
        "_raw",
        "_received",
        "_status",
        "_trailers",
        "_until_eof",
        "expires",
        "keep_alive",
        "keep_alive_hint",
        "on_body",
        "reader",
        "route",
        "served",
        "splice",
        "transport",
        "wish",
    )

    def __init__(self, on_lost: Callable[[Connection], None], route: Route) -> None:
        self.transport: asyncio.Transport | None = None
        self.reader: Reader | None = None
        self.keep_alive = False
        self.keep_alive_hint: float | None = None
        self.expires = 0.0
        self.served = 0  # exchanges that ended well
        self.route = route
        self._on_lost = on_lost
        self._parts: list[bytes] = []
        # The parser looks this up by name. A list's own method costs no Python frame per chunk.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        # What a reply that ended well leaves as it was. After any other the connection is not used again.
        self._raw: list[tuple[bytes, bytes]] = []  # headers, until the head is complete
        self._headers: dict[str, str] = {}
        self._status = 0  # until the head is handed on
        self._until_eof = False
        self._middle = False  # the head was handed on, the end has not come: only body is expected
        self._fault = ""
        self.splice: Splice | None = None
        """Who reads the socket in its place, for now."""
        self.wish: Splice | None = None
        """Who would like to, where the reply is between two chunks."""
        self._reset()

    def _reset(self) -> None:
        self._other = 0  # bytes since the last piece of body
        self._trailers = 0
        self._headed = False
        self._complete = False
        self._received = False
        self._aligned = False  # the last bytes were whole chunks of the body

    # For the pool and the exchange

    def start(self, reader: Reader, head: bytes, body: bytes) -> None:
        """Send a request and read its reply into ``reader``."""
        assert self.transport is not None
        self._reset()
        self.reader = reader
        if len(body) <= 65536:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    @property
    def reusable(self) -> bool:
        """True when the last exchange is over and the next one may begin."""
        transport = self.transport
        return (
            self.keep_alive
            and not self._fault
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )

    @property
    def closing(self) -> bool:
        """True when the socket is gone, or goes."""
        return self.transport is None or self.transport.is_closing()

    def abort(self) -> None:
        """Close the socket at once and tell the reader nothing."""
        self.reader = None
        self._middle = False
        self.wish = None
        if self.splice is not None:
            self.splice.abandon()
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Stop reading the socket."""
        if self.splice is not None:
            self.splice.take_back()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading the socket."""
        if self.transport is not None and not self.transport.is_closing():
            # In no context of anybody's: the socket would keep it.
            contextvars.Context().run(self.transport.resume_reading)

    # For a splice

    def descriptor(self) -> int | None:
        """Return the socket's descriptor; ``None`` where the reply is within a chunk, or encrypted."""
        transport = self.transport
        if not self._aligned or not self._middle or self.splice is not None or transport is None:
            return None
        if transport.is_closing() or transport.get_extra_info("ssl_object") is not None:
            return None
        descriptor: int = transport.get_extra_info("socket").fileno()
        return descriptor

    def lend(self, splice: Splice) -> None:
        """Let ``splice`` read the socket, until :meth:`returned`."""
        assert self.transport is not None
        self.splice = splice
        self._aligned = False  # until more has come here
        self.transport.pause_reading()

    def returned(self) -> None:
        """Nobody else reads the socket any more."""
        self.splice = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._stop(exc)
        if self._middle:
            parts = self._parts
            if self.wish is not None:
                self._consider(self.wish, data)
            if parts:
                piece = parts[0] if len(parts) == 1 else b"".join(parts)
                parts.clear()
                self._other = 0
                self.reader.received(piece)  # type: ignore[union-attr]
            else:
                self._count_other(len(data))
            return
        self._turn(len(data))

    def eof_received(self) -> None:
        if self._until_eof and not self._complete:
            self._complete = True
            self._turn(0)
        elif self.transport is not None:
            # At once: closing politely would first wait for the rest of a large request to be taken.
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.wish = None
        if self.splice is not None:
            self.splice.abandon()
        self._on_lost(self)
        reader, self.reader = self.reader, None
        if reader is not None:
            if self._until_eof and exc is None:
                reader.finished()
            else:
                reason = "the peer closed the connection" if exc is None else f"the connection broke ({exc})"
                reader.lost(reason, self._received)
        self._parts.clear()
        del self._parser, self._feed  # the parser holds this connection: the two would wait for the garbage collector

    # httptools callbacks. They only note; what follows from it happens after the feed, so that an
    # error raised by a reader never passes through the parser.

    def on_message_begin(self) -> None:
        if self._complete or self.reader is None:
            raise ValueError("more than one reply to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:
            self._raw.append((name, value))
            return
        self._trailers += len(name) + len(value) + 4  # nobody asks for them
        if self._trailers > HEAD_LIMIT:
            self._too_large()

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        raw, self._raw = self._raw, []
        status = self._parser.get_status_code()
        if status >= 200 or status < 100:
            self._status = status
            self._headed = True
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
            self._read_framing(status, headers if len(headers) == len(raw) else _joined(raw))
        elif status == 101:
            self._fault = "it switched to another protocol, which nobody had asked for"

    def on_message_complete(self) -> None:
        if self._headed:
            self._complete = True
            self._middle = False

    # The slow path: the head, the end, and all that is wrong

    def _read_framing(self, status: int, headers: dict[str, str]) -> None:
        self._headers = headers
        self.keep_alive = self._parser.should_keep_alive()
        self.keep_alive_hint = _timeout_of(headers["keep-alive"]) if "keep-alive" in headers else None
        coding = headers.get("transfer-encoding")
        if coding is not None:
            coding = coding.strip().lower()
            if coding not in ("", "chunked", "identity"):
                self._fault = f"it uses the transfer coding {coding[:40]!r}, which we do not take"
        self._until_eof = "content-length" not in headers and coding != "chunked" and status not in _BODYLESS

    def _turn(self, size: int) -> None:
        reader = self.reader
        if reader is None:
            self._fault = self._fault or "unasked bytes"
            self.abort()
            return
        if size:
            self._received = True
        if self._status:
            status, self._status = self._status, 0
            if self._other + size > HEAD_LIMIT and sum(map(len, chain(*self._headers.items()))) > HEAD_LIMIT:
                self._too_large()
            if not self._fault:
                reader.begin(status, self._headers)
        if self._parts:
            piece = b"".join(self._parts)
            self._parts.clear()
            size = 0
            if self.reader is reader and not self._fault:
                reader.received(piece)
        if self.reader is not reader:  # it left, in one of the calls above
            return
        if self._fault:
            self._give_up(reader)
        elif self._complete:
            # A kept connection holds nothing of what it was used for.
            self.reader = self.wish = None
            reader.finished()
        else:
            self._middle = self._headed
            self._count_other(size)

    def _stop(self, exc: Exception) -> None:
        if not self._complete:
            self._fault = self._fault or f"its reply is not valid HTTP/1.1 ({exc or type(exc).__name__})"
            self._middle = False
        else:
            self.keep_alive = False  # there was more than our reply: whose it is, nobody knows

    def _consider(self, wish: Splice, data: bytes) -> None:
        """Grant a wish after this turn of the loop, in which what was written goes out: ``data`` are whole chunks."""
        self._aligned = wish.wanted and are_chunks(data, self._parts)
        if self._aligned:
            asyncio.get_running_loop().call_soon(self._grant, wish)

    def _grant(self, wish: Splice) -> None:
        if wish is self.wish and self._aligned:
            wish.begin()

    def _count_other(self, size: int) -> None:
        self._other += size
        if self._other > HEAD_LIMIT and self.reader is not None:
            self._too_large()
            self._give_up(self.reader)

    def _give_up(self, reader: Reader) -> None:
        self.abort()
        reader.malformed(self._fault)

    def _too_large(self) -> None:
        self._middle = False
        self._fault = f"its reply's head is larger than {HEAD_LIMIT // 1024} KB"


def are_chunks(data: bytes, parts: list[bytes]) -> bool:
    """True where ``data`` are whole chunks of HTTP/1.1's chunked coding (RFC 9112, 7.1), which have the ``parts``."""
    at = 0
    for part in parts:
        end = data.find(b"\r\n", at, at + 10)
        try:
            size = int(data[at:end], 16) if end > at else -1
        except ValueError:
            return False
        at = end + size + 4
        if size != len(part) or data[at - 2 : at] != b"\r\n":
            return False
    return at == len(data) and bool(parts)


def _joined(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers as text, where some are repeated."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _timeout_of(keep_alive: str) -> float | None:
    for part in keep_alive.split(","):
        name, _, value = part.partition("=")
        if name.strip().lower() == "timeout" and value.strip().isdigit():
            return float(value)
    return None
