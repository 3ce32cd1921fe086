"""Content codings: gzip and deflate, unpacked in bounded pieces."""

from __future__ import annotations

import zlib

PIECE = 256 * 1024
"""Most bytes that one step unpacks, so that a reader can pause in the middle of a bomb."""


class Decoder:
    """Incremental gzip (any number of members) or deflate (with or without zlib's wrapper)."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding == "gzip"
        self._bits = 31 if self._gzip else 15
        self._inner = zlib.decompressobj(self._bits)
        self._input = b""
        self._started = False

    def feed(self, data: bytes) -> None:
        """Add packed bytes; :meth:`take` returns what they unpack to."""
        self._input = self._input + data if self._input else data

    def take(self) -> bytes:
        """Return up to 256 KB of unpacked bytes, empty when more input is needed. Raises ``ValueError``."""
        while self._input or self._inner.unconsumed_tail:
            if self._inner.eof:
                if not self._next_member():
                    return b""
                continue
            out = self._step()
            if out:
                return out
        return b""

    def _step(self) -> bytes:
        data, self._input = self._input, b""
        try:
            out = self._inner.decompress(data, PIECE)
        except zlib.error as exc:
            if self._gzip or self._started:
                raise ValueError(str(exc)) from None
            # "deflate" without the zlib wrapper, as some servers send it
            self._bits = -15
            self._inner = zlib.decompressobj(self._bits)
            try:
                out = self._inner.decompress(data, PIECE)
            except zlib.error:
                raise ValueError(str(exc)) from None
        self._started = True
        self._input = self._inner.unconsumed_tail or self._inner.unused_data
        return out

    def _next_member(self) -> bool:
        if not self._gzip:
            raise ValueError("bytes after the end of the deflate stream")
        if not self._input.strip(b"\x00"):  # gzip allows padding with zeros
            self._input = b""
            return False
        self._inner = zlib.decompressobj(self._bits)
        return True

    @property
    def empty(self) -> bool:
        """True when all that was fed has been taken."""
        return not self._input

    def finish(self) -> bool:
        """Say whether the packed stream is whole; an empty body is, too."""
        return self._inner.eof or not self._started or bool(self._input)


def decoder_for(coding: str) -> Decoder | None:
    """Return a decoder for a ``Content-Encoding``, ``None`` for one that is not supported."""
    if coding in ("gzip", "x-gzip"):
        return Decoder("gzip")
    if coding == "deflate":
        return Decoder("deflate")
    return None
