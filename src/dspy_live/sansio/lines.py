"""Bytes at any chunking to lines, as the event-stream format ends them: LF, CR or CR LF."""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
LINE_LIMIT = 64 << 20
"""Most bytes of one line, by default. A line of a stream has some hundred; one with an image in it may have many MB."""


class LineTooLong(ValueError):
    """A line is longer than the splitter's limit."""


class LineSplitter:
    """Split a byte stream into lines. A byte is looked at once, however small the pieces are.

    Args:
        limit: most bytes of an unfinished line; more raises :class:`LineTooLong`.

    ``size`` is the number of bytes of the unfinished line.
    """

    __slots__ = ("_cr", "_limit", "_rest", "_started", "size")

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._rest: list[bytes] = []
        self.size = 0
        self._cr = False  # the last byte was a CR, which has ended its line
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their ends. A leading byte order mark is dropped."""
        if not self._started:
            data = self._start(data)
        if self._cr or b"\r" in data:
            data = self._without_cr(data)
        if b"\n" not in data:
            self._keep(data)
            return []
        if self._rest:
            self._rest.append(data)
            data = self.rest()
        lines = data.split(b"\n")
        last = lines.pop()
        if last:
            self._keep(last)
        return lines

    def rest(self) -> bytes:
        """Take the unfinished line, for the end of the stream."""
        data = b"".join(self._rest)
        self._rest.clear()
        self.size = 0
        return data

    def _start(self, data: bytes) -> bytes:
        if self._rest:
            self._rest.append(data)
            data = self.rest()
        self._started = not (len(data) < len(BOM) and BOM.startswith(data))
        return data.removeprefix(BOM)

    def _keep(self, data: bytes) -> None:
        if data:
            self._rest.append(data)
            self.size += len(data)
            if self.size > self._limit:
                raise LineTooLong(f"one line is longer than {self._limit} bytes")

    def _without_cr(self, data: bytes) -> bytes:
        """Turn CR LF and CR into LF, also where the two bytes come in two pieces."""
        if self._cr and data[:1] == b"\n":
            data = data[1:]
            self._cr = False
        if data:
            self._cr = data[-1:] == b"\r"
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
