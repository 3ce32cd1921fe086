"""The console's handler, and a short way to it for plain lines, past records that nobody else would look at."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
        bars = _bars()
        with nullcontext() if bars is None else bars.external_write_mode(self.stream):
            super().emit(record)

    def write_line(self, line: str) -> None:
        """Write a line that is rendered already; on an event loop's thread at the end of the loop's turn."""
        with self.lock:  # type: ignore[union-attr]  # as acquire() does, without two calls
            self._lines.append(line)
            if len(self._lines) == 1:
                self._loop = loop = _loop_here()
                if loop is not None:
                    loop.call_soon(self.flush)
                    return
            elif self._loop is not None and not self._loop.is_closed():
                return
            self._write_lines()

    def flush(self) -> None:
        """Write the lines that wait. Standard error passes each line on by itself."""
        with self.lock:  # type: ignore[union-attr]
            if self._lines:
                self._write_lines()
            else:
                self._flush_stream()

    def close(self) -> None:
        self.flush()
        super().close()

    def _write_lines(self) -> None:
        text = "\n".join([*self._lines, ""])
        self._lines.clear()
        try:
            bars = _bars()
            if bars is None:
                self.stream.write(text)
            else:
                with bars.external_write_mode(self.stream):
                    self.stream.write(text)
            self._flush_stream()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": text}))

    def _flush_stream(self) -> None:
        stream = self.stream
        if not getattr(stream, "line_buffering", False) and hasattr(stream, "flush"):
            stream.flush()

    def _forget(self) -> None:
        """Of a forked process: lines that have come between the two are the parent's to write."""
        self._lines.clear()


def _bars() -> Any:
    """Return tqdm's class where it draws bars now, else ``None``."""
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return tqdm if getattr(tqdm, "_instances", None) else None


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def write_plain(
    logger: logging.Logger, level: int, message: str, fields: Mapping[str, Any], texts: Sequence[str]
) -> bool:
    """Write a line of numbers and short texts straight to the console, where it is all that ``logger`` reaches.

    ``texts`` are those values of ``fields`` that somebody outside may have chosen. False, and nothing is written, where
    the line must be logged as a record: somebody else listens or filters, or one of these could hold a secret. The
    caller has asked whether the level is enabled.
    """
    console = _console(logger, level)
    plain = None if console is None else getattr(console.formatter, "plain", None)
    if console is None or plain is None:
        return False
    name = logging.getLevelName(level)
    line = plain_line(plain, time.time(), name, logger.name, message, fields, texts)
    if line is None:
        return False
    console.write_line(line)
    return True


def _console(logger: logging.Logger, level: int) -> Console | None:
    """Return the console that hears of ``logger``; ``None`` where anything else has a part in its records."""
    if type(logger) is not logging.Logger or logger.filters or logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    heard = logger
    while (parent := heard.parent) is not None:
        if heard.handlers or not heard.propagate:
            return None
        heard = parent
    if len(heard.handlers) != 1:  # setup_logging() has put ours at the root
        return None
    (handler,) = heard.handlers
    return handler if type(handler) is Console and not handler.filters and handler.level <= level else None
