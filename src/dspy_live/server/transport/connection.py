"""A client's connection: requests are answered one after the other, and what waits for time has one timer for all."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dspy_live.runtime.scope import Room
from dspy_live.server.transport.exchange import Exchange
from dspy_live.server.transport.patience import Patience

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.server import ServerState

MOST_QUEUED = 16
"""Requests of one client that wait for the one before them; then its socket is not read, and its leaving not seen."""


LINGER = 1.0
"""Seconds in which the rest of a request is read and dropped after its reply, where that is the connection's last."""


MOST_TOGETHER = 1000
"""Requests of one client that may wait, where they came in one piece; its client is sent away with one more."""


class Shared:
    """What all connections of a server share: the timers of their waiting, and the ``Date`` of their replies."""

    __slots__ = ("context", "dated", "heads", "lines", "unused")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.heads: Patience[Connection] = Patience(loop, lambda connection: connection.give_up())
        self.unused: Patience[Connection] = Patience(loop, lambda connection: connection.close())
        self.dated: Any = None
        self.lines = b""
        """The header lines of every reply."""
        self.context = contextvars.copy_context()
        """The server's own, as no request has it."""

    def date(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the headers of every reply, which uvicorn renews every second."""
        self.dated = headers
        self.lines = b"".join(b"%b: %b\r\n" % header for header in headers)


_shared: weakref.WeakKeyDictionary[ServerState, Shared] = weakref.WeakKeyDictionary()


class Connection(asyncio.Protocol):
    r"""What :class:`Exchange`\ s need of a connection, which :class:`~.protocol.Protocol` reads; uvicorn makes it."""

    __slots__ = (
        "__weakref__",
        "_answered",
        "_config",
        "_exchange",
        "_last_words",
        "_lingers",
        "_loop",
        "_queued",
        "_reading_paused",
        "_room",
        "_shared",
        "_state",
        "_transport",
        "write",
        "writing_paused",
    )

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._state = server_state
        self._loop = loop or asyncio.get_event_loop()
        shared = _shared.get(server_state)
        if shared is None:
            shared = _shared[server_state] = Shared(self._loop)
        self._shared = shared
        self._transport: asyncio.Transport
        self.write: Callable[[bytes], None]
        """The transport's own."""
        self._exchange: Exchange | None = None  # of the last request that has come
        self._answered: Exchange | None = None  # the one that is, or was, answered
        self._queued: deque[Exchange] | None = None
        self._room: Room | None = None
        self._last_words = b""  # to what was no request, after the replies to those before it
        self._lingers = False
        self._reading_paused = False
        self.writing_paused = False
        """True while the client reads too slowly."""

    def connection_made(self, transport: Any) -> None:
        """The connection is there."""
        self._transport = transport
        self.write = transport.write
        self._state.connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the requests under way that their client has gone."""
        self._leave()
        for exchange in (self._answered, *(self._queued or ())):
            if exchange is not None:
                exchange.lost()
        self.resume_writing()

    def _leave(self) -> None:
        self._state.connections.discard(self)
        self._shared.heads.stop(self)
        self._shared.unused.stop(self)

    def shutdown(self) -> None:
        """Close when the reply that is under way is complete; now, if none is."""
        exchange = self._exchange
        if exchange is None or exchange.complete:
            self._transport.close()
        else:
            exchange.keep_alive = False

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.writing_paused = True
        if self._room is not None:
            self._room.set(False)

    def resume_writing(self) -> None:
        """The client takes more."""
        self.writing_paused = False
        if self._room is not None:
            self._room.set(True)

    def give_up(self) -> None:
        """The time for a request is over."""
        self._transport.close()

    def _end_with(self, words: bytes, within: bool) -> None:
        """Say ``words`` as the last ones, after the replies under way; ``within`` a request, which then breaks off."""
        exchange = self._exchange
        if exchange is not None and within:
            exchange.lost()
            if self._queued and self._queued[-1] is exchange:
                self._queued.pop()
                exchange = self._exchange = self._queued[-1] if self._queued else self._answered
            else:
                words = b"" if exchange.began else words  # nothing fits into a reply, or after the one to this request
                exchange = None
        if exchange is None or exchange.complete:
            self._transport.write(words)
            self._transport.close()
        else:
            self._last_words = words

    # Requests, in their order.

    def _ask(self, exchange: Exchange) -> None:
        if self._transport.is_closing():  # under TLS, bytes still come
            return
        before, self._exchange = self._exchange, exchange
        if before is None or before.complete:
            self._begin(exchange)
        else:
            self._queued = self._queued or deque()
            self._queued.append(exchange)
            if self._crowded:
                self.pause_reading()

    @property
    def _crowded(self) -> bool:
        return self._queued is not None and len(self._queued) >= MOST_QUEUED

    def _begin(self, exchange: Exchange) -> None:
        self._answered = exchange
        exchange.task = self._loop.create_task(exchange.run(self._config.loaded_app))
        self._state.tasks.add(exchange.task)

    # For an exchange.

    @property
    def is_closing(self) -> bool:
        """True where nothing more can be written."""
        return self._transport.is_closing()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at the end of the loop's turn."""
        self._loop.call_soon(callback)

    def rest(self, exchange: Exchange) -> None:
        """A reply of unknown length begins: let go of its request's headers, and of what reads the next request."""

    def close(self) -> None:
        """Close the connection when all is written."""
        self._transport.close()

    def common_lines(self) -> bytes:
        """Return the header lines of every reply."""
        shared, headers = self._shared, self._state.default_headers
        if headers is not shared.dated:
            shared.date(headers)
        return shared.lines

    async def writable(self) -> None:
        """Wait until the client takes more, or is gone."""
        if self.writing_paused:
            if self._room is None:
                self._room = Room()
                self._room.set(False)
            await self._room.wait()

    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, where not too many requests wait."""
        if self._reading_paused and not self._crowded and not self._transport.is_closing():
            self._reading_paused = False
            # Not in the context of whoever calls: the next request would run in it.
            self._shared.context.run(self._transport.resume_reading)

    def lend(self) -> int | None:
        """Read no more and return the socket's descriptor, for writing; ``None`` where bytes wait or TLS is spoken."""
        transport = self._transport
        if (
            self.writing_paused
            or self._reading_paused
            or self._queued
            or transport.is_closing()
            or transport.get_write_buffer_size()
            or transport.get_extra_info("ssl_object") is not None
        ):
            return None
        self.pause_reading()
        descriptor: int = transport.get_extra_info("socket").fileno()
        return descriptor

    def replied(self, exchange: Exchange) -> None:
        """A reply is complete: begin with the next request, or wait for it."""
        self._state.total_requests += 1
        if not exchange.keep_alive:
            self._close_after(exchange)
        if self._lingers or self._transport.is_closing():
            return
        if self._queued:
            self._begin(self._queued.popleft())
        elif self._last_words:
            self.write(self._last_words)
            self._transport.close()
            return
        else:
            self._shared.unused.start(self, self._config.timeout_keep_alive)
        if self._reading_paused:
            self.resume_reading()

    def _close_after(self, exchange: Exchange) -> None:
        """Close when the rest of the request has come: at once would be a reset, which takes the reply along."""
        if not exchange.unfinished or self._transport.is_closing():
            self._transport.close()
            return
        self._lingers = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.resume_reading()
        self._loop.call_later(LINGER, self._transport.close)

    def left(self, exchange: Exchange) -> None:
        """The application has ended with a request."""
        if exchange.task is not None:
            self._state.tasks.discard(exchange.task)
