"""Content codings: gzip and deflate, unpacked in bounded pieces."""

from __future__ import annotations

import zlib

PIECE = 256 * 1024
"""Most bytes that one step unpacks, so that a reader can pause in the middle of a bomb."""


class DecodeError(ValueError):
    """The bytes are not what their coding says."""


class Decoder:
    """Incremental gzip (any number of members) or deflate (with or without zlib's wrapper)."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding == "gzip"
        self._inner = zlib.decompressobj(31 if self._gzip else 15)
        self._input = b""
        self._more = False  # the last piece was full: zlib may hold more without any input
        self._started = False

    def feed(self, data: bytes) -> None:
        """Add packed bytes; :meth:`take` returns what they unpack to."""
        self._input = self._input + data if self._input else data

    def take(self) -> bytes:
        """Return up to 256 KB of unpacked bytes, empty when more input is needed. Raises :class:`DecodeError`."""
        if not self._started and len(self._input) < 2:
            return b""  # too little to tell with which header it begins
        while self._input or self._more:
            if self._inner.eof and not self._next_member():
                return b""
            out = self._step()
            if out:
                return out
        return b""

    @property
    def empty(self) -> bool:
        """True when all that was fed has been taken."""
        return (not self._input and not self._more) or (not self._started and len(self._input) < 2)

    @property
    def whole(self) -> bool:
        """True when the packed stream is not cut. No bytes at all are whole, too."""
        return self._inner.eof or (not self._started and not self._input)

    def _step(self) -> bytes:
        data, self._input = self._input, b""
        if not self._started and not self._gzip and not _has_wrapper(data):
            # Some servers send "deflate" without the zlib wrapper that the standard asks for.
            self._inner = zlib.decompressobj(-15)
        self._started = True
        try:
            out = self._inner.decompress(data, PIECE)
        except zlib.error as exc:
            raise DecodeError(str(exc)) from None
        self._more = len(out) == PIECE and not self._inner.eof
        self._input = self._inner.unconsumed_tail or self._inner.unused_data
        return out

    def _next_member(self) -> bool:
        if not self._gzip:
            raise DecodeError("bytes after the end of the deflate stream")
        if not self._input.strip(b"\0"):  # gzip may be padded with zeros
            self._input = b""
            return False
        self._inner = zlib.decompressobj(31)
        return True


def _has_wrapper(data: bytes) -> bool:
    """Say whether deflate data begins with zlib's two bytes (RFC 1950)."""
    return data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0


def decoder_for(coding: str) -> Decoder | None:
    """Return a decoder for a ``Content-Encoding``, ``None`` for one that is not supported."""
    if coding in ("gzip", "x-gzip"):
        return Decoder("gzip")
    if coding == "deflate":
        return Decoder("deflate")
    return None
