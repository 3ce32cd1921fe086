"""Log files that start anew, also where several processes write to the same one."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import BaseRotatingHandler, RotatingFileHandler, TimedRotatingFileHandler
from pathlib import Path


class _Shared(BaseRotatingHandler):
    """Takes turns with other processes: one of them moves the file, the others go on in the new one.

    The standard library's handlers each move whatever lies there, so that lines are lost and a move fails where another
    process was quicker.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._is_moved():
                self._follow()
            if self.shouldRollover(record):  # type: ignore[attr-defined]  # each of the two kinds has it
                with self._turn():
                    if self._is_moved():
                        self._follow()
                    if self.shouldRollover(record):  # type: ignore[attr-defined]
                        self.doRollover()  # type: ignore[attr-defined]
            logging.FileHandler.emit(self, record)
        except Exception:
            self.handleError(record)

    def _follow(self) -> None:
        """Go on in the file that lies at the place now; where none can be made, in the one that was moved."""
        with suppress(OSError):
            before, self.stream = self.stream, self._open()
            if before is not None:
                before.close()

    def _is_moved(self) -> bool:
        # No stream: it was closed, and is opened again by the next line.
        return self.stream is not None and not _is_same(self.stream.fileno(), self.baseFilename)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock of the file that lies at the place, until it may be another one."""
        while True:
            # A file of its own: a forked process would share the lock of the one that is written to.
            file = os.open(self.baseFilename, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _is_same(file, self.baseFilename):
                    yield
                    return
            finally:
                os.close(file)


class BySize(_Shared, RotatingFileHandler):
    """Starts a new file at a size."""


class ByTime(_Shared, TimedRotatingFileHandler):
    """Starts a new file with each hour or day (UTC)."""

    def _follow(self) -> None:
        super()._follow()
        now = int(time.time())
        if now >= self.rolloverAt:
            self.rolloverAt = self.computeRollover(now)


def _is_same(file: int, place: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), Path(place).stat())
    except OSError:
        return False


__all__ = ["BySize", "ByTime"]
