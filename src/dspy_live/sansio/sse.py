"""Server-sent events, both ways, by the WHATWG's rules (HTML standard, "Server-sent events")."""

from __future__ import annotations

import re

import msgspec

from dspy_live.sansio.lines import LINE_LIMIT, LineSplitter, LineTooLong

_LINE_END = re.compile(rb"\r\n|\r|\n")
_NOT_IN_FIELD = re.compile(r"[\r\n\x00]")


class ServerEvent(msgspec.Struct, frozen=True):
    """One dispatched event. ``event`` is ``"message"`` where the stream names none; ``id`` is the last one seen."""

    data: str
    event: str = "message"
    id: str = ""


class EventTooLarge(ValueError):
    """An event is larger than the decoder's limit."""


def encode(event: str | None, data: bytes, id: str | None = None) -> bytes:  # noqa: A002
    """Return one event as bytes, with its blank line.

    Args:
        event: its name, ``None`` for the default (``message``).
        data: UTF-8; line ends become several ``data`` lines, so a reader gets LF for each of them.
        id: what a reader sends back as ``Last-Event-ID``; ``None`` leaves the reader's as it is.

    Raises ``ValueError`` for a name or id with a line end or NUL, which would break the stream.
    """
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    head = ""
    if id is not None:
        head = f"id: {_field('id', id)}\n"
    if event is not None:
        head += f"event: {_field('event', event)}\n"
    return b"%bdata: %b\n\n" % (head.encode(), data)


def comment(text: str = "") -> bytes:
    """Return a comment, which readers ignore: a heartbeat that keeps idle connections open."""
    return f": {_field('comment', text)}\n\n".encode()


def retry(milliseconds: int) -> bytes:
    """Return the field that sets a reader's reconnection time."""
    if milliseconds < 0:
        raise ValueError(f"retry must be a number of milliseconds, at least 0; got {milliseconds!r}")
    return b"retry: %d\n\n" % milliseconds


class EventDecoder:
    """Decode a stream fed at any chunking.

    Args:
        limit: most bytes of one event.

    Attributes:
        last_event_id: of the last blank line that was seen; what to resume after.
        reconnect: the reconnection time that the stream set, in milliseconds, or ``None``.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self.last_event_id = ""
        self.reconnect: int | None = None
        self._lines = LineSplitter(limit)
        self._limit = limit
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._id = ""

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that ``data`` completes. An unfinished event at the end of a stream is no event.

        Raises :class:`EventTooLarge`.
        """
        try:
            lines = self._lines.feed(data)
        except LineTooLong:
            raise self._too_large() from None
        out: list[ServerEvent] = []
        for line in lines:
            if line:
                self._field(line)
            else:
                self._dispatch(out)
        return out

    def _dispatch(self, out: list[ServerEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            data = b"\n".join(self._data).decode("utf-8", "replace")
            out.append(ServerEvent(data, self._event or "message", self._id))
            self._data.clear()
            self._size = 0
        self._event = ""

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
            if self._size > self._limit:
                raise self._too_large()
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self.reconnect = int(value)

    def _too_large(self) -> EventTooLarge:
        return EventTooLarge(f"one event is larger than {self._limit} bytes")


def _field(name: str, value: str) -> str:
    if _NOT_IN_FIELD.search(value):
        raise ValueError(f"an event's {name} must not have a line end or NUL in it; got {value!r}")
    return value
