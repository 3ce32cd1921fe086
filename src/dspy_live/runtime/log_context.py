"""Which run the code that asks is part of, for log lines. Programs say where to look; without them there is no run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from dspy_live.core.call import Call


class Whereabouts(msgspec.Struct, frozen=True):
    """Where in which run some code is: the predictor is empty between predictors."""

    call: Call
    program: str
    predictor: str = ""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The run's inputs, which a log may have to hide."""
        return self.call.inputs


Source = Callable[[], Whereabouts | None]
_source: Source = lambda: None  # noqa: E731
_level: Callable[[], int | str | None] = lambda: _of_dspy_settings()  # noqa: E731
_when_loaded: list[Callable[[], object]] = []


def whereabouts() -> Whereabouts | None:
    """Return where the calling code is, or ``None`` outside of any run."""
    return _source()


def preferred_level() -> int | None:
    """Return the log level that DSPy's settings name, or ``None``."""
    level = _level()
    if isinstance(level, str):
        return logging.getLevelNamesMapping().get(level.upper())
    return level


def _of_dspy_settings() -> Any:
    # Looked up where DSPy is there already, and not imported: who sets up logs may have no use for it.
    settings = getattr(sys.modules.get("dspy"), "settings", None)
    return None if settings is None else settings.get("log_level")


def programs_loaded(source: Source) -> None:
    """Say where to look for the running run. Called by programs, once."""
    global _source
    _source = source
    for callback in _when_loaded:
        callback()


def when_programs_are_loaded(callback: Callable[[], object]) -> None:
    """Call ``callback`` when DSPy and our programs have been imported; it should also be called by hand now."""
    _when_loaded.append(callback)
