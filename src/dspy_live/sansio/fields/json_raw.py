"""A JSON value that does not stream as text: where it ends, however deep its strings and brackets go."""

from __future__ import annotations

import re

_NESTED = re.compile(r'[^"{}\[\]]*')
_BARE = re.compile(r'[^"{}\[\], \t\n\r]*')
_QUOTED = re.compile(r'(?:[^"\\]+|\\.)*+', re.DOTALL)


class RawValue:
    """Finds the end of one value, without looking at what is in it.

    ``bare`` says that the value is neither a string nor in brackets, so that only what follows ends it.
    """

    __slots__ = ("_depth", "_escape", "_quoted", "bare")

    def __init__(self, first: str) -> None:
        self.bare = first not in '"[{'
        self._depth = 0
        self._quoted = False
        self._escape = False

    def end(self, text: str, at: int) -> int:
        """Read on from ``at``; return where the value ends in ``text``, or -1 if it goes on."""
        size = len(text)
        at += self._escape
        self._escape = False
        while at < size:
            pattern = _QUOTED if self._quoted else _NESTED if self._depth else _BARE
            match = pattern.match(text, at)
            assert match is not None  # it matches the empty string too
            at = match.end()
            if at == size:
                break
            char = text[at]
            if self._quoted:
                if char == "\\":  # the last character: what it escapes is not there yet
                    self._escape = True
                    break
                self._quoted = False
            elif self.bare or (not self._depth and char not in '"[{'):
                return at
            else:
                self._quoted = char == '"'
                self._depth += (char in "[{") - (char in "]}")
            at += 1
            if not self._depth and not self._quoted:
                return at
        return -1
