"""An event stream as the reply to a request."""

from __future__ import annotations

import time
from collections.abc import Callable

from dspy_live.server.errors import ClientGone
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.exchange import Exchange
from dspy_live.server.transport.http import Headers, Request
from dspy_live.server.transport.writer import BodyWriter

EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
HEARTBEAT = b": keep-alive\n\n"


class EventStream:
    """Replies with an event stream, written from plain calls. A silent one has heartbeats, between whole pieces.

    Used as ``with event_stream(…) as stream:``. The head goes out before the first piece, with the time until then; a
    failure before it can still be an HTTP error. On a connection of ours a piece goes to its transport in the call.

    Args:
        request: what it is the reply to.
        stop: called with a :class:`ClientGone` when its client has gone.
        opening: what stands before the first piece.
    """

    __slots__ = ("_body", "_opening", "_request", "_sent_before", "_watch", "room", "write")

    def __init__(self, request: Request, stop: Callable[[ClientGone], object], opening: bytes = b"") -> None:
        self._request = request
        self._opening = opening
        self._watch = cancel_on_disconnect(request, stop)
        self._body: Exchange | BodyWriter = request.exchange or BodyWriter(request.send_raw, stop)
        self._sent_before = 0
        self.room = self._body.room
        self.write: Callable[[bytes], bool] = self._first
        """Writes a piece. False asks to pause until ``room()``. It is another one once the head is out."""

    @property
    def exchange(self) -> Exchange | None:
        """The reply itself, where it is on a connection of ours and has begun."""
        return self._body if isinstance(self._body, Exchange) and self._body.began else None

    def __enter__(self) -> EventStream:
        self._request.app.pulse.add(self)
        self._watch.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what is not written yet."""
        self._request.app.pulse.remove(self)
        self._watch.__exit__()
        self._body.close()
        self._request.sent += self._body.sent_so_far()
        self.write = self._body.write  # in place of a method of its own, which would hold it

    def _first(self, piece: bytes) -> bool:
        return self._body.write(piece) if self._request.began else self.open(piece)

    def write_soon(self, piece: bytes) -> bool:
        """Write a piece that nobody waits for: with what is written next, at the end of the loop's turn at the latest.

        False asks to pause until ``room()``.
        """
        return self._body.write_soon(piece) if self._request.began else self.open(piece)

    def open(self, *pieces: bytes) -> bool:
        """Write the head and with it the first pieces. False asks to pause until ``room()``."""
        timing = (b"server-timing", b"start;dur=%.3f" % ((time.perf_counter() - self._request.born) * 1000))
        head = self._request.head(200, [*EVENT_STREAM, timing])
        if self._opening:
            pieces = self._opening, *pieces
        room = self._body.begin(200, head, *pieces)
        self.write = self._body.write
        return room

    def beat(self) -> None:
        """Write a heartbeat where nothing was written since the last call and nothing waits to be."""
        sent = self._body.sent_so_far()
        if sent == self._sent_before and self._body.idle:
            self.write(HEARTBEAT)
            sent += len(HEARTBEAT)
        self._sent_before = sent

    async def end(self, piece: bytes = b"") -> None:
        """Write the last piece and wait until it is the transport's, which may wait for the client."""
        if not self._request.began:
            self.open()
        self._body.end(piece)
        await self._body.flushed()


def event_stream(request: Request, stop: Callable[[ClientGone], object], opening: bytes = b"") -> EventStream:
    """Reply to ``request`` with an event stream; ``stop`` is called when its client has gone."""
    return EventStream(request, stop, opening)
