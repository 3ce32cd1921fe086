"""One request and its reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from dspy_live.runtime.http.condition import Condition
from dspy_live.runtime.http.connection import Connection
from dspy_live.runtime.http.decode import DecodeError, decoder_for
from dspy_live.runtime.http.errors import (
    BodyTooLarge,
    ConnectionBroken,
    FirstByteTimeout,
    IdleTimeout,
    ProtocolError,
    Redirected,
    TransportError,
)
from dspy_live.runtime.http.inbox import Inbox
from dspy_live.runtime.http.silence import Silence, Timeouts

if TYPE_CHECKING:
    from dspy_live.runtime.http.pool import HttpPool, Route
    from dspy_live.runtime.http.splice import Splice

_REDIRECTS = (301, 302, 303, 307, 308)


class Exchange:
    """One request and its reply; made by :meth:`HttpPool.exchange`, used as ``async with``.

    Entering connects and sends. Leaving before the reply has ended, by cancellation too, closes the
    socket at once; after the end the connection has gone back to the pool. An exception raised by
    ``on_body`` closes the socket and comes out of :meth:`done`.

    Attributes:
        status: the HTTP status, 0 before it is known.
        headers: lower-case names; repeated headers are joined with ``", "``.
        reused: true when the request went out on a kept connection.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_changed",
        "_complete",
        "_connection",
        "_ended",
        "_error",
        "_head",
        "_headed",
        "_inbox",
        "_loop",
        "_pool",
        "_route",
        "_silence",
        "_stale",
        "_timeouts",
        "headers",
        "reused",
        "status",
    )

    def __init__(
        self,
        pool: HttpPool,
        route: Route,
        head: bytes,
        body: bytes,
        timeouts: Timeouts,
        on_body: Callable[[bytes], None] | None,
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reused = False
        self._pool = pool
        self._route = route
        self._head = head
        self._body = body
        self._timeouts = timeouts
        self._inbox = Inbox(on_body)
        self._silence: Silence | None = None
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = Condition()
        self._error: BaseException | None = None
        self._headed = False
        self._ended = False  # nothing more will be read from a socket
        self._complete = False  # and the whole body was handed on
        self._stale = False

    # For the reader of the reply

    @property
    def on_body(self) -> Callable[[bytes], None] | None:
        """Called in the socket's own callback with each piece of decoded body; setting it hands over what waits."""
        return self._inbox.sink

    @on_body.setter
    def on_body(self, sink: Callable[[bytes], None]) -> None:
        try:
            self._inbox.take_over(sink)
        except BaseException as exc:
            self._fail_with(exc)
        self._read_on()

    @property
    def address(self) -> str:
        """``host:port`` of the endpoint, for messages."""
        return self._route.address

    def pause(self) -> None:
        """Stop reading the socket, so that the peer's writes stop. May be called from ``on_body``.

        What was read before may still come: at most one piece of 256 KB. Calling it twice is once.
        """
        if not self._inbox.paused:
            self._inbox.paused = True
            self._hold_back()
            self._changed.notify()

    def resume(self) -> None:
        """Go on reading after :meth:`pause`."""
        if self._inbox.paused:
            self._inbox.paused = False
            self._read_on()

    def abort(self) -> None:
        """Close the socket at once. A task that waits gets :class:`ConnectionBroken`."""
        if not self._ended:
            self._fail(ConnectionBroken(self.address, "aborted by us", received=self._headed))

    async def headers_received(self) -> None:
        """Wait until ``status`` and ``headers`` are there.

        A kept connection that ends before any byte of the reply is replaced once by a fresh one.
        Raises a :class:`TransportError`; :class:`Redirected` for a redirect. Cancellation changes
        nothing by itself; leaving the context closes the socket.
        """
        if self._loop is None:
            raise RuntimeError("nothing was sent yet; use it as: async with pool.exchange(...) as exchange")
        while not self._headed:
            if self._error is not None:
                raise self._error
            if self._stale:
                await self._start_again()
                continue
            await self._changed.wait()
        if isinstance(self._error, Redirected):
            raise self._error

    async def wait(self) -> bool:
        """Wait until the whole body was handed on, then return True; return False while the exchange is paused.

        Between the two no task wakes, however many pieces come. Raises as :meth:`done`.
        """
        if not self._headed or self._error is not None:
            await self.headers_received()
        while not self._complete:
            if self._error is not None:
                raise self._error
            if self._inbox.paused:
                return False
            # As Condition.wait does it, without a frame of its own: thousands of streams wait here.
            news = self._changed.promise()
            try:
                await news
            finally:
                self._changed.forget(news)
        return True

    async def done(self) -> None:
        """Wait until the whole body was handed on; with no ``on_body`` by now it is read and thrown away.

        Raises :class:`ConnectionBroken` when it was cut, the other :class:`TransportError`s by name,
        and whatever ``on_body`` raised.
        """
        await self.headers_received()
        if self._inbox.sink is None:
            self.on_body = _throw_away
        while not self._complete:
            if self._error is not None:
                raise self._error
            await self._changed.wait()

    async def read(self, limit: int = 64 << 20, *, truncate: bool = False) -> bytes:
        """Return the whole decoded body.

        Args:
            limit: in bytes; a longer body raises :class:`BodyTooLarge`.
            truncate: return the first ``limit`` bytes of a longer body instead, and close the socket;
                a body that is cut then gives what had come. For error bodies.
        """
        if not self._headed or self._error is not None:
            await self.headers_received()
        inbox = self._inbox
        if self._ended and self._error is None and inbox.whole and inbox.size <= limit:
            body = inbox.take()
            self._complete = True
            self._changed.notify()
            return body
        parts: list[bytes] = []
        size = 0

        def collect(data: bytes) -> None:
            nonlocal size
            parts.append(data)
            size += len(data)
            if size > limit:
                raise BodyTooLarge(self.address, f"the reply is longer than {limit} bytes", received=True)

        self.on_body = collect
        try:
            await self.done()
        except TransportError:
            if not truncate:
                raise
        return b"".join(parts)[:limit]

    async def __aenter__(self) -> Exchange:
        self._loop = asyncio.get_running_loop()
        connection = self._pool._begin(self, self._route)
        if connection is None:
            try:
                connection = await self._pool._connect(self._route, self._timeouts.connect)
            except BaseException:
                self._pool._exchanges.discard(self)
                raise
        self._send(connection)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._ended:
            self._fail(ConnectionBroken(self.address, "the exchange was left before its end", received=self._headed))
        # The reader usually holds this exchange: the two would wait for the garbage collector.
        self._inbox.sink = None
        self._pool._exchanges.discard(self)

    # For a splice of its stream

    def wish(self, splice: Splice) -> None:
        """Let ``splice`` begin when the reply is between two chunks."""
        if self._connection is not None and self._inbox.decoder is None:
            self._connection.wish = splice

    def spliceable(self) -> Connection | None:
        """Return the connection, where its reply's body goes to the reader as it is, and the reader has room."""
        inbox = self._inbox
        return None if inbox.stopped or inbox.decoder is not None or inbox.sink is None else self._connection

    def lend(self, splice: Splice, heard: Callable[[], float]) -> None:
        """Let ``splice`` read the socket; ``heard`` tells when it last heard something, by the loop's clock."""
        assert self._connection is not None
        self._connection.lend(splice)
        if self._silence is not None:
            self._silence.heard_elsewhere(heard)

    def returned(self, heard: float) -> None:
        """The socket is not read elsewhere any more; the last bytes came at ``heard``."""
        if self._silence is not None:
            self._silence.heard_at(heard)
        if self._connection is not None:
            self._connection.returned()

    def read_on(self, unread: bytes) -> None:
        """Go on reading where a splice has ended, which has read ``unread`` and not used it."""
        connection = self._connection
        if connection is None or connection.closing:
            return
        if not self._inbox.stopped:
            connection.resume()
        if unread:
            connection.data_received(unread)

    # For the connection

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """The head of the reply is there."""
        self.status = status
        self.headers = headers
        self._headed = True
        self._head = self._body = b""  # nothing will be sent again
        if status in _REDIRECTS and "location" in headers:
            self._fail(Redirected(self.address, status, headers["location"].partition("?")[0][:200]))
        elif "content-encoding" in headers:
            self._decode(headers["content-encoding"].strip().lower())
        self._changed.notify()

    def _decode(self, coding: str) -> None:
        if coding not in ("", "identity"):
            self._inbox.decoder = decoder_for(coding)
            if self._inbox.decoder is None:
                self._fail(ProtocolError(self.address, f"its reply is encoded as {coding[:40]!r}", received=True))

    def received(self, data: bytes) -> None:
        """A piece of the body, as it was on the wire but for its framing."""
        if self._silence is not None:
            self._silence.heard()
        inbox = self._inbox
        try:
            if inbox.decoder is None and inbox.sink is not None:
                inbox.sink(data)
                return
            inbox.receive(data)
        except BaseException as exc:
            self._fail_with(exc)
        if inbox.full:
            self._hold_back()

    def finished(self) -> None:
        """The body has ended as it should; the connection is free."""
        connection, self._connection = self._connection, None
        self._ended = True
        if self._silence is not None:
            self._silence.stop()
        inbox = self._inbox
        if connection is not None:
            if inbox.paused or inbox.full:
                connection.resume()
            self._pool._release(connection)
        if inbox.empty:
            self._settle()

    def malformed(self, reason: str) -> None:
        """The peer does not speak HTTP as we take it."""
        self._fail(ProtocolError(self.address, reason, received=True))

    def lost(self, reason: str, received: bool) -> None:
        """The connection is gone before the end."""
        self._connection = None
        if self.reused and not received and not self._ended:
            self._stale = True
            self._stop_watching()
            self._pool._went_stale()
            self._changed.notify()
        else:
            when = "before the reply had ended" if self._headed else "before it had replied"
            self._fail(ConnectionBroken(self.address, f"{reason} {when}", received=received))

    # Inside

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        self.reused = connection.served > 0
        connection.start(self, self._head, self._body)
        timeouts = self._timeouts
        if timeouts.first_byte is not None or timeouts.idle is not None:
            self._silence = Silence(asyncio.get_running_loop(), timeouts, self._timed_out)
            self._silence.start()
        if self._inbox.paused:
            self._hold_back()

    async def _start_again(self) -> None:
        self._stale = False
        try:
            connection = await self._pool._connect(self._route, self._timeouts.connect)
        except Exception as exc:
            self._fail(exc)
            raise
        except BaseException:  # the caller is cancelled, and not the exchange: another task that waits takes over
            self._stale = not self._ended
            self._changed.notify()
            raise
        if self._ended:
            connection.abort()
        else:
            self._send(connection)

    def _fail(self, error: BaseException) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self._ended = True
        self._stop_watching()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self._inbox.clear()
        self._changed.notify()

    def _fail_with(self, exc: BaseException) -> None:
        """Something on the way to the reader raised: the decoder's word for a bad body, or the reader itself."""
        if self._error is None and isinstance(exc, DecodeError):
            self._fail(ProtocolError(self.address, f"its compressed reply is malformed ({exc})", received=True))
        else:
            self._fail(exc)
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            raise exc

    def _hold_back(self) -> None:
        if self._silence is not None:
            self._silence.stop()
        if self._connection is not None:
            self._connection.pause()

    def _read_on(self) -> None:
        """The reader has room: hand on what waits, then read the socket again."""
        inbox = self._inbox
        if not inbox.stopped:
            try:
                inbox.drain()
            except BaseException as exc:
                self._fail_with(exc)
        if inbox.stopped:
            return
        if self._connection is not None:
            self._connection.resume()
            if self._silence is not None:
                self._silence.start()
        self._settle()

    def _settle(self) -> None:
        """The body is complete when the socket has given all and the reader has taken all."""
        inbox = self._inbox
        if self._complete or not self._ended or self._error is not None or not inbox.empty:
            return
        if inbox.decoder is not None and not inbox.decoder.whole:
            self._fail(ProtocolError(self.address, "its compressed reply is cut", received=True))
        else:
            self._complete = True
            self._changed.notify()

    def _timed_out(self, first: bool, limit: float) -> None:
        if first:
            reason = f"no byte of a reply's body within {limit:g} s of the request"
            self._fail(FirstByteTimeout(self.address, reason, received=self._headed))
        else:
            reason = f"nothing came for {limit:g} s in the middle of the reply"
            self._fail(IdleTimeout(self.address, reason, received=True))

    def _stop_watching(self) -> None:
        if self._silence is not None:
            self._silence.stop()


def _throw_away(data: bytes) -> None:
    pass
