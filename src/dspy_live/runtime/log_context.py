"""The run that the calling code is part of, for log lines. Programs install the look-up; without them there is none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from dspy_live.core.call import Call


class LogContext(msgspec.Struct, frozen=True):
    """The run, the program and the predictor that the calling code is in; between predictors that one is empty."""

    call: Call
    program: str
    predictor: str = ""


LookUp = Callable[[], LogContext | None]
_look_up: LookUp = lambda: None  # noqa: E731
_when_loaded: list[Callable[[], object]] = []


def current_log_context() -> LogContext | None:
    """Return the log context of the calling code, or ``None`` outside of any run."""
    return _look_up()


def level_of_dspy_settings() -> int | None:
    """Return the log level that ``dspy.settings.log_level`` names, or ``None``.

    DSPy is looked up where it is imported already, and not imported for this.
    """
    settings: Any = getattr(sys.modules.get("dspy"), "settings", None)
    level = None if settings is None else settings.get("log_level")
    return logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level


def programs_loaded(look_up: LookUp) -> None:
    """Install the look-up of the running run. Called by programs, once."""
    global _look_up
    _look_up = look_up
    for callback in _when_loaded:
        callback()


def when_programs_are_loaded(callback: Callable[[], object]) -> None:
    """Call ``callback`` when DSPy and our programs have been imported; it should also be called by hand now."""
    _when_loaded.append(callback)
