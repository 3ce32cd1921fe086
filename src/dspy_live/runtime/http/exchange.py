"""One request and its reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from dspy_live.runtime.http.connection import Connection
from dspy_live.runtime.http.decode import Decoder, decoder_for
from dspy_live.runtime.http.errors import (
    BodyTooLarge,
    ConnectionBroken,
    FirstByteTimeout,
    IdleTimeout,
    ProtocolError,
    Redirected,
    TransportError,
)

if TYPE_CHECKING:
    from dspy_live.runtime.http.pool import HttpPool, Route

PENDING_LIMIT = 256 * 1024
"""Most bytes of body that wait for somebody to take them; then the socket is not read."""

_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; ``None`` waits for ever.

    Args:
        connect: until the connection stands, DNS, proxy and TLS included.
        first_byte: from the sent request to the first byte of the reply's *body*: many LM servers
            send the head at once and think afterwards.
        idle: the longest silence within the body. Time while the exchange is paused does not count.
    """

    connect: float | None = 10.0
    first_byte: float | None = None
    idle: float | None = None


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
        self._sink: Callable[[bytes], None] | None = on_body
        self._decoder: Decoder | None = None
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock: Callable[[], float] | None = None  # set while silence is measured
        self._waiters: list[asyncio.Future[None]] = []
        self._error: BaseException | None = None
        self._headed = False
        self._begun = False
        self._ended = False  # nothing more will be read from the socket
        self._complete = False  # the whole body was handed on
        self._stale = False
        self._retried = False
        self._paused = False
        self._held = False  # paused by ourselves: nobody takes the body yet
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0

    # The user's side

    @property
    def on_body(self) -> Callable[[bytes], None] | None:
        """Called in the socket's own callback with each piece of decoded body. Setting it hands over what has waited."""
        return self._sink

    @on_body.setter
    def on_body(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        if self._pending:
            waiting = b"".join(self._pending)
            self._pending.clear()
            self._pending_size = 0
            self._hand_on(waiting)
        if self._held:
            self._held = False
            self._read_on()
        self._settle()

    @property
    def where(self) -> str:
        """``host:port`` of the endpoint, for messages."""
        return self._route.where

    def pause(self) -> None:
        """Stop reading the socket, so that the peer's writes stop. May be called from ``on_body``.

        What had been read already may still come: at most one piece of 256 KB. Calling it twice is once.
        """
        if not self._paused:
            self._paused = True
            self._hold_back()

    def resume(self) -> None:
        """Go on reading after :meth:`pause`."""
        if self._paused:
            self._paused = False
            self._read_on()
            self._settle()

    def abort(self) -> None:
        """Close the socket at once. Whoever waits gets :class:`ConnectionBroken`."""
        if not self._ended:
            self._fail(ConnectionBroken(self.where, "aborted by us", received=self._headed))

    async def headers_received(self) -> None:
        """Wait until ``status`` and ``headers`` are there.

        A kept connection that ends before any byte of the reply is replaced once by a fresh one.
        Raises a :class:`TransportError`; :class:`Redirected` for a redirect. Cancellation changes
        nothing by itself; leaving the context closes the socket.
        """
        while not self._headed:
            if self._error is not None:
                raise self._error
            if self._stale:
                await self._start_again()
            else:
                await self._wait()
        if isinstance(self._error, Redirected):
            raise self._error

    async def done(self) -> None:
        """Wait for the end of the body. Raises :class:`ConnectionBroken` when it was cut, other
        :class:`TransportError`s by name, and whatever ``on_body`` raised."""
        await self.headers_received()
        while not self._complete:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self, limit: int = 64 << 20, *, truncate: bool = False) -> bytes:
        """Return the whole decoded body.

        Args:
            limit: in bytes; a longer body raises :class:`BodyTooLarge`.
            truncate: return the first ``limit`` bytes of a longer body instead, and close the socket;
                a body that is cut then gives what had come. For error bodies.
        """
        await self.headers_received()
        parts: list[bytes] = []
        size = 0

        def collect(data: bytes) -> None:
            nonlocal size
            parts.append(data)
            size += len(data)
            if size > limit:
                raise BodyTooLarge(self.where, f"the reply is longer than {limit} bytes", received=True)

        self.on_body = collect
        try:
            await self.done()
        except TransportError:
            if not truncate:
                raise
        return b"".join(parts)[:limit]

    async def __aenter__(self) -> Exchange:
        self._loop = asyncio.get_running_loop()
        self._send(await self._pool._acquire(self, self._route, self._timeouts.connect))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._ended:
            self._fail(ConnectionBroken(self.where, "the exchange was left before its end", received=self._headed))
        self._pool._left(self)

    # Connecting and waiting

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        self.reused = connection.served > 0
        connection.start(self, self._head, self._body)
        if self._paused:
            self._hold_back()
        assert self._loop is not None
        self._since = self._loop.time()
        self._arm(self._timeouts.first_byte)

    async def _start_again(self) -> None:
        self._stale = False
        self._retried = True
        try:
            connection = await self._pool._connect(self._route, self._timeouts.connect)
        except BaseException as exc:
            self._error = self._error or exc
            self._ended = True
            self._wake()
            raise
        if self._ended:
            connection.abort()
            return
        self._send(connection)

    async def _wait(self) -> None:
        assert self._loop is not None, "use the exchange as: async with pool.exchange(...) as exchange"
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    # What the connection reports

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._headed = True
        self._body = b""
        if status in _REDIRECTS and "location" in headers:
            self._fail(Redirected(self.where, status, headers["location"].partition("?")[0][:200]))
            return
        coding = headers.get("content-encoding", "").strip().lower()
        if coding not in ("", "identity"):
            self._decoder = decoder_for(coding)
            if self._decoder is None:
                self._fail(ProtocolError(self.where, f"its reply is encoded as {coding[:40]!r}", received=True))
        self._wake()

    def received(self, data: bytes) -> None:
        if self._clock is not None:
            self._since = self._clock()
        if not self._begun:
            self._body_begins()
        if self._decoder is None and self._sink is not None:
            try:
                self._sink(data)
            except BaseException as exc:
                self._fail(exc)
        else:
            self._received_slowly(data)

    def finished(self) -> None:
        connection, self._connection = self._connection, None
        self._ended = True
        self._stop_timer()
        if connection is not None:
            self._pool._release(self._route, connection)
        if self._decoder is not None and not self._decoder.finish():
            self._error = self._error or ProtocolError(self.where, "its compressed reply is cut", received=True)
        self._settle()
        self._wake()

    def malformed(self, reason: str) -> None:
        self._fail(ProtocolError(self.where, reason, received=True))

    def lost(self, reason: str, received: bool) -> None:
        if self.reused and not received and not self._retried and not self._ended:
            self._connection = None
            self._stale = True
            self._stop_timer()
            self._pool._went_stale()
            self._wake()
        else:
            when = "before the reply had ended" if self._headed else "before it had replied"
            self._connection = None
            self._fail(ConnectionBroken(self.where, f"{reason} {when}", received=received))

    # Inside

    def _fail(self, error: BaseException) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self._ended = True
        self._stop_timer()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self._pending.clear()
        self._wake()

    def _hand_on(self, data: bytes) -> None:
        assert self._sink is not None
        try:
            self._sink(data)
        except BaseException as exc:
            self._fail(exc)

    def _received_slowly(self, data: bytes) -> None:
        """The body is compressed, or nobody takes it yet."""
        if self._decoder is not None:
            self._decoder.feed(data)
            self._drain_decoder()
        else:
            self._keep(data)

    def _drain_decoder(self) -> None:
        """Hand on decoded pieces until there is no more, or the reader pauses: a small body may unpack to gigabytes."""
        decoder = self._decoder
        assert decoder is not None
        try:
            while not (self._paused or self._held or self._error) and (piece := decoder.take()):
                if self._sink is not None:
                    self._hand_on(piece)
                else:
                    self._keep(piece)
        except ValueError as exc:
            self._fail(ProtocolError(self.where, f"its compressed reply is malformed ({exc})", received=True))

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= PENDING_LIMIT and not self._held:
            self._held = True
            self._hold_back()

    def _hold_back(self) -> None:
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.pause_reading()

    def _read_on(self) -> None:
        if self._paused or self._held:
            return
        if self._decoder is not None:
            self._drain_decoder()
            if self._paused or self._held:
                return
        if self._connection is not None and self._connection.transport is not None:
            assert self._loop is not None
            self._since = self._loop.time()
            self._connection.transport.resume_reading()
            if self._timer is None:
                self._arm(self._timeouts.idle if self._begun else self._timeouts.first_byte)

    def _settle(self) -> None:
        """The body is complete when the socket has given all and the reader has taken all."""
        if self._complete or not self._ended or self._error is not None:
            return
        if not self._pending and (self._decoder is None or self._decoder.empty):
            self._complete = True
            self._wake()

    # Timers: one per exchange, armed again only when it fires

    def _body_begins(self) -> None:
        self._begun = True
        assert self._loop is not None
        self._stop_timer()
        if self._timeouts.idle is not None:
            self._clock = self._loop.time
            self._since = self._loop.time()
            self._arm(self._timeouts.idle)

    def _arm(self, limit: float | None) -> None:
        if limit is not None:
            assert self._loop is not None
            self._timer = self._loop.call_at(self._since + limit, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._ended or self._paused or self._held or self._connection is None:
            return
        limit = self._timeouts.idle if self._begun else self._timeouts.first_byte
        assert self._loop is not None and limit is not None
        if self._since + limit > self._loop.time() + 0.001:
            self._arm(limit)
        elif self._begun:
            self._fail(
                IdleTimeout(self.where, f"nothing came for {limit:g} s in the middle of the reply", received=True)
            )
        else:
            reason = f"no reply within {limit:g} s of the request"
            self._fail(FirstByteTimeout(self.where, reason, received=self._headed))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
