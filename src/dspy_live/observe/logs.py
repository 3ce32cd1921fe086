"""Logs: structured, with the run on every line, rotated, and without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TextIO

from dspy_live.core.errors import ConfigurationError
from dspy_live.observe.console import Console
from dspy_live.observe.prompts import PromptHider
from dspy_live.observe.redact import redact
from dspy_live.runtime.log_context import level_of_dspy_settings, when_programs_are_loaded
from dspy_live.sansio.quantities import bytes_of

Prompts = Literal["show", "hide"]

OURS = "_dspy_live"
"""The attribute that marks our handlers, and that holds the fields of a record."""
PLAIN = "_dspy_live_plain"
"""The attribute of a record whose fields are numbers and short texts: it is rendered ten times faster."""
_adopts = False
_hider: PromptHider | None = None


def setup_logging(
    level: int | str | None = None,
    file: str | Path | None = None,
    json: bool | None = None,
    rotate: int | str | None = None,
    *,
    keep: int = 5,
    prompts: Prompts = "show",
    stream: TextIO | None = None,
) -> None:
    """Send all logs of the process, DSPy's and the program's own too, to the console and to ``file``.

    Every line that is written while a run is under way has its ``run`` id, ``program`` and ``predictor``. Texts that
    look like a key, a token or a password are taken out of every line. Calling it again replaces the handlers that it
    made and leaves others alone.

    Args:
        level: the least level that is written; ``dspy.settings.log_level`` where that is set, else ``INFO``.
        file: a file to write to as well; its folder must be there.
        json: one JSON object per line, on the console and in the file; ``False`` writes for people in both. By default
            the console is for people and the file is JSON.
        rotate: start a new file with the first line past a size (``"10 MB"``, or bytes) or a time (``"daily"``,
            ``"hourly"``); by default the file grows.
        keep: how many older files are kept.
            Several processes may write to one file: they take turns, by a lock in a hidden file beside it.
        prompts: ``"hide"`` takes the inputs of the run out of every line they are found in, of those that tell of its
            failure too, and the values of fields such as ``prompt``, ``messages``, ``inputs`` and ``outputs``. A
            program's line that quotes an answer, or an input in other words, is not recognised.
        stream: the console; standard error by default.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for an unknown level, a wrong ``rotate``, or a file that
    can't be written.
    """
    from dspy_live.observe.log_lines import formatter  # here, since structlog imports rich: a tenth of a second

    number = _level_of(level)
    if prompts not in ("show", "hide"):
        raise ConfigurationError(f"prompts must be 'show' or 'hide'; got {prompts!r}")
    console: logging.Handler = Console(stream)
    handlers = [(console, bool(json), _is_terminal(stream))]
    if file is not None:
        handlers.append((_file_handler(Path(file), rotate, keep), json is not False, False))
    elif rotate is not None:
        raise ConfigurationError("rotate needs a file")
    root = logging.getLogger()
    reset_logging()
    global _hider
    _hider = PromptHider() if prompts == "hide" else None
    for handler, as_json, colours in handlers:
        handler.setFormatter(formatter(as_json=as_json, colours=colours, hider=_hider))
        setattr(handler, OURS, True)
        handler.handleError = _WriteFailure(handler)  # type: ignore[method-assign]
        root.addHandler(handler)
    root.setLevel(number)
    _adopt_loggers()


def reset_logging() -> None:
    """Remove the handlers of :func:`setup_logging`; its file is closed."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if getattr(h, OURS, False)]:
        root.removeHandler(handler)
        handler.close()
    global _hider
    if _hider is not None:
        _hider.close()
        _hider = None


def log_structured(level: int | str, message: str, **fields: Any) -> None:
    """Log ``message`` with ``fields``, under the name of the module that calls.

    After :func:`setup_logging` the fields are columns of the line; with other handlers they follow the message as
    ``name=value``. Fields that JSON can't hold are written as text. Raises
    :class:`~dspy_live.core.errors.ConfigurationError` for an unknown level.
    """
    logger = logging.getLogger(sys._getframe(1).f_globals.get("__name__", "dspy_live"))
    number = _level_of(level)
    if logger.isEnabledFor(number):
        logger.log(number, "%s", _Message(message, fields), stacklevel=2, extra={OURS: (message, fields)})


class _Message:
    """Text for handlers that know nothing of fields; made only when one of them asks."""

    def __init__(self, message: str, fields: Mapping[str, Any]) -> None:
        self._message, self._fields = message, fields

    def __str__(self) -> str:
        return redact(" ".join([self._message, *(f"{name}={value!r}" for name, value in self._fields.items())]))


def _file_handler(path: Path, rotate: int | str | None, keep: int) -> logging.Handler:
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise ConfigurationError(f"keep must be a whole number of files, at least 1; got {keep!r}")
    size = None if rotate in (None, "daily", "hourly") else _size(rotate)
    try:
        if rotate is None:
            return logging.FileHandler(path, encoding="utf-8", errors="replace")
        path.open("ab").close()  # those below open it with the first line only
        # Here, since it imports Redis's client where that is installed: half a second.
        from concurrent_log_handler import ConcurrentRotatingFileHandler, ConcurrentTimedRotatingFileHandler

        options: Any = {"backupCount": keep, "encoding": "utf-8", "unicode_error_policy": "replace"}
        if size is not None:
            return ConcurrentRotatingFileHandler(path, maxBytes=size, **options)
        return ConcurrentTimedRotatingFileHandler(path, "midnight" if rotate == "daily" else "H", utc=True, **options)
    except OSError as exc:
        raise ConfigurationError(f"the log can't be written to {str(path)!r}: {exc.strerror or exc}") from None


def _size(rotate: int | str) -> int:
    try:
        size = bytes_of(rotate)
    except ConfigurationError:
        size = 0
    if size < 1:
        raise ConfigurationError(
            f"rotate must be a size such as '10 MB', a number of bytes, 'daily' or 'hourly'; got {rotate!r}"
        )
    return size


class _WriteFailure:
    """Reports that a handler can't write, once and in one line of standard error.

    The logging package's own report comes with every line and quotes its arguments, which may hold secrets.
    """

    def __init__(self, handler: logging.Handler) -> None:
        self._name = getattr(handler, "baseFilename", "the console")
        self._other_failure = handler.handleError
        self._reported = False

    def __call__(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self._other_failure(record)
        elif not self._reported and sys.stderr is not None:
            self._reported = True
            with suppress(OSError, ValueError):
                sys.stderr.write(redact(f"dspy-live: the log can't be written to {self._name}: {error}\n"))


def _level_of(level: int | str | None) -> int:
    if level is None:
        return level_of_dspy_settings() or logging.INFO
    if isinstance(level, str):
        number = logging.getLevelNamesMapping().get(level.upper())
        if number is not None:
            return number
    elif isinstance(level, int) and not isinstance(level, bool):
        return level
    raise ConfigurationError(f"a log level is DEBUG, INFO, WARNING, ERROR or CRITICAL; got {level!r}")


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return (stream or sys.stderr).isatty()
    except (AttributeError, ValueError):
        return False


def _adopt_loggers() -> None:
    """DSPy and LiteLLM write to handlers of their own; their lines belong with the others."""
    global _adopts
    for name in ("dspy", "LiteLLM"):
        logger = logging.getLogger(name)
        if logger.handlers and any(getattr(h, OURS, False) for h in logging.getLogger().handlers):
            for handler in logger.handlers[:]:
                logger.removeHandler(handler)
            logger.propagate = True
    if not _adopts:
        _adopts = True
        when_programs_are_loaded(_adopt_loggers)
