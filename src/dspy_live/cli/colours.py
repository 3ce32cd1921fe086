"""Colours of the terminal, where there is one that wants them."""

from __future__ import annotations

import os
from typing import Literal, TextIO

Colour = Literal["red", "green", "yellow", "dim"]
_CODES: dict[Colour, str] = {"red": "1;31", "green": "32", "yellow": "33", "dim": "2"}


def wants_colours(stream: TextIO) -> bool:
    """Return whether colours are shown there: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: Colour, stream: TextIO) -> str:
    """Return the text in that colour for a stream, or as it is."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if wants_colours(stream) else text
