"""The console's handler, and a short way to it for plain lines, past records that nobody else would look at."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from dspy_live.observe.plain_lines import plain_line
from dspy_live.runtime.forks import at_fork


class Console(logging.StreamHandler[TextIO]):
    """Takes progress bars out of the way of each line and draws them again below it.

    Lines of :meth:`write_line` that come in one turn of an event loop are written at its end, by one call of the
    system; any record that comes meanwhile is written behind them.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        at_fork(before=self.flush, in_child=self._forget)

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines:
            self._write_lines()
        with self._beside_bars():
            super().emit(record)

    def write_line(self, line: str) -> None:
        """Write a line that is rendered already; on an event loop's thread at the end of the loop's turn."""
        with self.lock:  # type: ignore[union-attr]  # as acquire() does, without two calls
            lines = self._lines
            lines.append(line)
            if len(lines) == 1:
                self._loop = _loop_here()
                if self._loop is not None:
                    self._loop.call_soon(self.flush)
            if self._loop is None or self._loop.is_closed():
                self._write_lines()

    def flush(self) -> None:
        """Write the lines that wait. Standard error passes each line on by itself."""
        self.acquire()
        try:
            if self._lines:
                self._write_lines()
            elif not getattr(self.stream, "line_buffering", False):
                super().flush()
        finally:
            self.release()

    def close(self) -> None:
        self.flush()
        super().close()

    def _write_lines(self) -> None:
        text = "\n".join([*self._lines, ""])
        self._lines.clear()
        try:
            with self._beside_bars():
                self.stream.write(text)
                self.flush()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": text}))

    def _forget(self) -> None:
        """Of a forked process: lines that have come between the two are the parent's to write."""
        self._lines.clear()

    def _beside_bars(self) -> AbstractContextManager[Any]:
        tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
        return tqdm.external_write_mode(self.stream) if getattr(tqdm, "_instances", None) else nullcontext()


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def write_plain(
    logger: logging.Logger, level: int, message: str, fields: Mapping[str, Any], texts: Sequence[str]
) -> bool:
    """Write a line of numbers and short texts straight to the consoles that ``logger`` reaches.

    ``texts`` are those values of ``fields`` that somebody outside may have chosen. False, and nothing is written, where
    the line must be logged as a record: somebody else listens or filters, or one of these could hold a secret. The
    caller has asked whether the level is enabled.
    """
    created, name = time.time(), logging.getLevelName(level)
    lines: list[tuple[Console, str]] = []
    for console in _consoles(logger, level):
        plain = getattr(console.formatter, "plain", None)
        line = None if plain is None else plain_line(plain, created, name, logger.name, message, fields, texts)
        if line is None:
            return False
        lines.append((console, line))
    for console, line in lines:
        console.write_line(line)
    return bool(lines)


def _consoles(logger: logging.Logger, level: int) -> Sequence[Console]:
    """Return the consoles that hear of ``logger``; empty where anything else than them has a part in its records."""
    if type(logger) is not logging.Logger or logger.filters or logging.getLogRecordFactory() is not logging.LogRecord:
        return ()
    heard = logger
    while heard.parent is not None:
        if heard.handlers or not heard.propagate:
            return ()
        heard = heard.parent
    found: Any = heard.handlers  # setup_logging() has put ours at the root
    for handler in found:
        if type(handler) is not Console or handler.filters or handler.level > level:
            return ()
    return tuple(found)
