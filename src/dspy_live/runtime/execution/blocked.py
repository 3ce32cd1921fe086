"""Who blocks the loop: inline programs are watched, and the line that does not let go is named in a warning.

A program that runs inline switches out while an LM works; every stretch between two switches is a step. While
inline runs are active a thread looks every 20 ms at the steps that go on, and where one has gone on for too long, at
the stack of its thread.
"""

from __future__ import annotations

import itertools
import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

INTERVAL = 0.02
# A garbage collection or a big reply's parsing takes less.
TOO_LONG = 0.06
# Looks are counted, and not seconds: a process that was stopped for a while has not blocked its loop.
_LOOKS = 3
# The thread stays for a while: runs come one after the other.
_LINGER = 1.0

_OURS = str(Path(__file__).parents[2])
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class BlockingCodeWarning(RuntimeWarning):
    """A program that runs inline held the event loop up: every other run of the loop stood still meanwhile."""


class BlockWatch:
    """Counts the steps of inline programs by thread, and looks at those that take too long. One per process.

    Args:
        now: the monotonic clock, in seconds.
        sleep: waits so many seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._active = 0
        self._thread: threading.Thread | None = None
        self._numbers = itertools.count(1)
        # The step that goes on in each loop's thread, 0 between two; and the steps that were seen to take too long.
        self._steps: dict[int, int] = {}
        self.warned: set[tuple[str, int]] = set()

    def __enter__(self) -> BlockWatch:
        with self._lock:
            self._active += 1
            # A forked child has the object of a thread that did not come along.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="dspy-live-blocked", daemon=True)
                self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._active -= 1

    def step(self, switch: Callable[..., T], *arguments: object) -> T:
        """Run one step: ``switch`` into the program and come back."""
        ident = threading.get_ident()
        self._steps[ident] = next(self._numbers)
        try:
            return switch(*arguments)
        finally:
            self._steps[ident] = 0
            del switch, arguments  # no traceback carries a greenlet: see bridge.in_inline_run

    def _look(self) -> None:
        seen: dict[int, tuple[int, int]] = {}
        idle_since: float | None = None
        while True:
            self._sleep(INTERVAL)
            now = self._now()
            with self._lock:
                idle_since = None if self._active else idle_since or now
                if idle_since is not None and now - idle_since > _LINGER:
                    self._thread = None
                    self._steps.clear()
                    return
            for ident, number in list(self._steps.items()):
                last, looks = seen.get(ident, (0, 0))
                looks = looks + 1 if number and number == last else 0
                seen[ident] = (number, looks)
                if looks >= _LOOKS:
                    self._tell(ident)

    def _tell(self, ident: int) -> None:
        place = _users_line(sys._current_frames().get(ident))
        if place is None or place in self.warned:
            return
        message = (
            f"this line has held the event loop up for more than {TOO_LONG * 1000:.0f} ms, and with it every other "
            "run: a program with execution='inline' may wait for nothing but LMs; use execution='thread'"
        )
        try:
            warnings.warn_explicit(message, BlockingCodeWarning, *place)
        except BlockingCodeWarning:
            pass  # where warnings are errors: there is nobody here to raise it to
        finally:
            self.warned.add(place)


def _users_line(frame: FrameType | None) -> tuple[str, int] | None:
    """The innermost line of the user's; ``None`` where DSPy or ours is at work below it, and not the user."""
    while frame is not None:
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if name.startswith(("dspy.", "dspy_live.")) or file.startswith(_OURS):
            return None
        if not file.startswith((*_LIBRARIES, "<")):
            return file, frame.f_lineno
        frame = frame.f_back
    return None


watch = BlockWatch()
