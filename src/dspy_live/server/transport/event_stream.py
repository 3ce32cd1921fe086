"""An event stream as the reply to a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dspy_live.server.errors import ClientGone
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.http import Headers, Request
from dspy_live.server.transport.writer import Writer

EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
HEARTBEAT = b": keep-alive\n\n"


class EventStream:
    """Writes an event stream from plain calls. A silent one has heartbeats, which stand between whole pieces.

    The head goes out before the first piece, with the time until then; a failure before it can still be an HTTP error.

    Args:
        request: what it is the reply to.
        lost: called with a :class:`ClientGone` when a write fails.
        opening: what stands before the first piece.
    """

    __slots__ = ("_opening", "_request", "_silent", "_writer", "room")

    def __init__(self, request: Request, lost: Callable[[ClientGone], object], opening: bytes = b"") -> None:
        self._request = request
        self._opening = opening
        self._silent = True
        self._writer = Writer(request.send_raw, lost)
        self.room = self._writer.room

    def write(self, piece: bytes) -> bool:
        """Write a piece. False asks to pause until ``room()``."""
        self._silent = False
        if not self._request.began:
            self.open()
        self._request.sent += len(piece)
        return self._writer.write({"type": "http.response.body", "body": piece, "more_body": True})

    def open(self) -> None:
        """Write the head."""
        timing = (b"server-timing", b"start;dur=%.3f" % ((time.perf_counter() - self._request.born) * 1000))
        self._writer.write(self._request.head(200, [*EVENT_STREAM, timing]))
        if self._opening:
            self.write(self._opening)

    def beat(self) -> None:
        """Write a heartbeat where nothing was written since the last call and nothing waits to be."""
        if self._silent and self._writer.idle:
            self.write(HEARTBEAT)
        self._silent = True

    async def end(self, piece: bytes = b"") -> None:
        """Write the last piece and wait until the client has been sent all."""
        if not self._request.began:
            self.open()
        self._request.sent += len(piece)
        await self._writer.end({"type": "http.response.body", "body": piece, "more_body": False})

    def close(self) -> None:
        """Drop what is not written yet."""
        self._writer.close()


@contextmanager
def event_stream(request: Request, stop: Callable[[ClientGone], object], opening: bytes = b"") -> Iterator[EventStream]:
    """Reply to ``request`` with an event stream; ``stop`` is called when its client has gone."""
    stream = EventStream(request, stop, opening)
    try:
        with request.app.pulse.of(stream), cancel_on_disconnect(request.receive, stop):
            yield stream
    finally:
        stream.close()
