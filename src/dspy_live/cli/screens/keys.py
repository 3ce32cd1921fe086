"""Keys that a person presses while a screen is shown."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def pressed(keys: str) -> Iterator[asyncio.Event]:
    """Give an event that is set when one of ``keys`` is pressed; the terminal is as it was after the block.

    Where standard input is no terminal, or the system has none of that kind (Windows), nothing is ever pressed. Ctrl-C
    stays the interrupt that it is.
    """
    event = asyncio.Event()
    terminal = _terminal()
    if terminal is None:
        yield event
        return
    import termios
    import tty

    before: Any = termios.tcgetattr(terminal)
    loop = asyncio.get_running_loop()

    def read() -> None:
        if any(key in keys for key in os.read(terminal, 64).decode(errors="replace")):
            event.set()

    tty.setcbreak(terminal, termios.TCSANOW)
    loop.add_reader(terminal, read)
    try:
        yield event
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def _terminal() -> int | None:
    """Return standard input's descriptor where it is a terminal of ours, and this process is in its foreground."""
    try:
        descriptor = sys.stdin.fileno()
        ours = os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except (AttributeError, ValueError, OSError):
        return None
    return descriptor if ours else None
