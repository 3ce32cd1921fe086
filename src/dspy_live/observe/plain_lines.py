"""Plain lines of the log: their fields are numbers and short texts, which are rendered in a microsecond or two.

The line is the one that structlog's renderers make of the same fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from dspy_live.observe.redact import redact

Fields = Mapping[str, Any]
Line = Callable[[str, str, str, str, Fields, bool], str]
"""Renders a line of its time, level, logger, message and fields; True says that no text in it needs quotes."""

_LONGEST = 300
"""Characters of a line's texts that are remembered; a client chooses some of them, and their length."""


def plain_line(
    line: Line, created: float, level: str, logger: str, message: str, fields: Fields, texts: Sequence[str]
) -> str | None:
    """Return the line that ``line`` renders, without a line break at its end.

    ``texts`` are those values of ``fields`` that somebody outside may have chosen, in their order. ``None`` where they
    could hold a secret: the usual way, which redacts, must write that line.
    """
    joined = " ".join(texts)
    look = _looked_at if len(joined) <= _LONGEST else _look_at
    harmless, simple = look(joined, len(texts))
    if not harmless:
        return None
    return line(_time_of(created), level.lower(), logger, message, fields, simple)


def texts_of(fields: Fields) -> list[str]:
    """Return all texts of a line."""
    return [value for value in fields.values() if type(value) is str]


def text_line(time: str, level: str, logger: str, message: str, fields: Fields, simple: bool) -> str:
    """Render a line for people."""
    shown = _template(tuple(fields)) % tuple(fields.values()) if simple else " ".join(map(_shown, fields.items()))
    return f"{time} [{level.ljust(9)}] {message} [{logger}] {shown}"


def json_line(time: str, level: str, logger: str, message: str, fields: Fields, simple: bool) -> str:
    """Render a line as one JSON object."""
    return dumps({"timestamp": time, "level": level, "logger": logger, "event": message, **fields})


def dumps(value: Any, **_: Any) -> str:
    """Return any value as JSON; what JSON can't hold as text."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):  # half of a surrogate pair, a number of more than 64 bits
        return json.dumps(value, default=str)


def _shown(field: tuple[str, Any]) -> str:
    """A field in a line for people: text that could be taken for more than one value, or one line, is quoted."""
    name, value = field
    if type(value) is not str or (value.isprintable() and " " not in value and '"' not in value):
        return f"{name}={value}"
    return f"{name}={value!r}"


def _look_at(texts: str, count: int) -> tuple[bool, bool]:
    """Return whether so many texts, joined by spaces, hold no secret, and whether all can be shown as they are."""
    shown_as_they_are = texts.isprintable() and '"' not in texts and texts.count(" ") < max(count, 1)
    return redact(texts) == texts, shown_as_they_are


_looked_at = lru_cache(maxsize=512)(_look_at)


@lru_cache(maxsize=64)
def _template(names: tuple[str, ...]) -> str:
    return " ".join(f"{name}=%s" for name in names)


def _time_of(created: float) -> str:
    second = int(created)
    return f"{_second(second)}.{str(int((created - second) * 1e6)).zfill(6)}Z"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
