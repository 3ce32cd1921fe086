"""How a line of the log is written: its fields, its order, its rendering, and the redaction of the finished line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from dspy_live.observe.logs import OURS, PLAIN
from dspy_live.observe.prompts import PromptHider
from dspy_live.observe.redact import redact
from dspy_live.runtime.log_context import current_log_context

Event = MutableMapping[str, Any]
Quick = Callable[[logging.LogRecord, str, Mapping[str, Any], str], str]
"""Renders a record from its message, its fields, and their values with spaces between."""


def formatter(*, as_json: bool, colours: bool, hider: PromptHider | None) -> logging.Formatter:
    """Return what makes a line of a record: JSON, or text for people; ``hider`` takes a run's inputs out of it."""
    render: Any
    if as_json:
        render = structlog.processors.JSONRenderer(serializer=_dumps, sort_keys=False)
    else:
        render = structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, sort_keys=False
        )
    before: list[Any] = [
        _fields_of_the_record,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_log_context,
    ]
    after: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json or hider is not None:
        after.append(structlog.processors.format_exc_info)
    if hider is not None:
        after.append(hider)
    quick = _quick_json if as_json else None if colours else _quick_text
    return _Redacting(quick, foreign_pre_chain=before, processors=[*after, _in_order, render])


class _Redacting(structlog.stdlib.ProcessorFormatter):
    """Renders a record and redacts the finished line; a plain one, whose fields are all known, by a shorter way."""

    def __init__(self, quick: Quick | None, **options: Any) -> None:
        super().__init__(**options)
        self._quick = quick

    def format(self, record: logging.LogRecord) -> str:
        if self._quick is not None and getattr(record, PLAIN, False):
            message, fields = getattr(record, OURS)
            values = " ".join(map(str, fields.values()))
            if redact(values) == values:
                return self._quick(record, message, fields, values)
        # The last step, on the finished line: nothing that a processor or a traceback adds escapes it.
        return redact(super().format(record))


def _quick_json(record: logging.LogRecord, message: str, fields: Mapping[str, Any], _: str) -> str:
    head = {"timestamp": _time_of(record), "level": record.levelname.lower(), "logger": record.name, "event": message}
    return _dumps({**head, **fields})


def _quick_text(record: logging.LogRecord, message: str, fields: Mapping[str, Any], values: str) -> str:
    if values.isprintable() and values.count(" ") == len(fields) - 1 and '"' not in values:
        pairs = map("%s=%s".__mod__, fields.items())
    else:
        pairs = map(_shown, fields.items())
    return f"{_time_of(record)} [{record.levelname.lower():<9}] {message} [{record.name}] {' '.join(pairs)}"


def _time_of(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _shown(field: tuple[str, Any]) -> str:
    """A field in a line for people: text that could be taken for more than one value, or one line, is quoted."""
    name, value = field
    if type(value) is not str or (value.isprintable() and " " not in value and '"' not in value):
        return f"{name}={value}"
    return f"{name}={value!r}"


def _fields_of_the_record(_: Any, __: str, event: Event) -> Event:
    structured = getattr(event["_record"], OURS, None)
    if structured is not None:
        message, fields = structured
        for name, value in fields.items():
            event[name if name not in ("event", "level", "logger", "timestamp") else f"{name}_"] = value
        event["event"] = message
    return event


def _add_log_context(_: Any, __: str, event: Event) -> Event:
    context = current_log_context()
    if context is not None:
        event["run"] = context.call.id
        event["program"] = context.program
        if context.predictor:
            event["predictor"] = context.predictor
    return event


def _in_order(_: Any, __: str, event: Event) -> Event:
    first = {name: event[name] for name in ("timestamp", "level", "logger", "event") if name in event}
    return {**first, **event}


def _dumps(value: Any, **_: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):  # half of a surrogate pair, a number of more than 64 bits
        return json.dumps(value, default=str)
