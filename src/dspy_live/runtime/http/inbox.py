"""The body's way from the socket to its reader: decoded, and kept while nobody takes it."""

from __future__ import annotations

from collections.abc import Callable

from dspy_live.runtime.http.decode import Decoder

PENDING_LIMIT = 256 * 1024
"""Most bytes of body that wait for somebody to take them; then the socket is not read."""


class Inbox:
    """Hand a body on in pieces, in order, each at most once.

    Attributes:
        sink: takes the pieces; ``None`` while nobody does.
        decoder: for a compressed body.
        paused: set by the reader: nothing more is handed on that was not there already.
        full: nobody takes the pieces and enough of them wait.
        size: bytes that wait.
    """

    __slots__ = ("_pending", "decoder", "full", "paused", "sink", "size")

    def __init__(self, sink: Callable[[bytes], None] | None) -> None:
        self.sink = sink
        self.decoder: Decoder | None = None
        self.paused = False
        self.full = False
        self._pending: list[bytes] = []
        self.size = 0

    @property
    def stopped(self) -> bool:
        """True while the socket is not to be read."""
        return self.paused or self.full

    @property
    def empty(self) -> bool:
        """True when all that has come was handed on."""
        return not self._pending and (self.decoder is None or self.decoder.empty)

    @property
    def whole(self) -> bool:
        """True when what waits is all that has come, and needs no decoding."""
        return self.sink is None and self.decoder is None

    def take(self) -> bytes:
        """Return what waits, all in one."""
        pending = self._pending
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self.size = 0
        return data

    def receive(self, data: bytes) -> None:
        """Take a piece from the socket. Raises what the sink raises, and :class:`DecodeError`."""
        if self.decoder is not None:
            self.decoder.feed(data)
            self.drain()
        elif self.sink is not None:
            self.sink(data)
        else:
            self._keep(data)

    def take_over(self, sink: Callable[[bytes], None]) -> None:
        """Give what waits to a new sink, which gets all that follows. Raises as :meth:`receive`."""
        self.sink = sink
        self.full = False
        waiting = self.take()
        if waiting:
            sink(waiting)

    def drain(self) -> None:
        """Unpack piece by piece, while there is room: a small body may unpack to gigabytes.

        Raises as :meth:`receive`.
        """
        decoder = self.decoder
        while decoder is not None and not self.stopped:
            piece = decoder.take()
            if not piece:
                return
            if self.sink is not None:
                self.sink(piece)
            else:
                self._keep(piece)

    def clear(self) -> None:
        """Forget what waits."""
        self._pending.clear()
        self.size = 0

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self.size += len(data)
        self.full = self.size >= PENDING_LIMIT
