"""How a line of the log is written: its fields, its order, its rendering, and the redaction of the finished line."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog

from dspy_live.observe.logs import OURS, PLAIN
from dspy_live.observe.plain_lines import Line, dumps, json_line, plain_line, text_line, texts_of
from dspy_live.observe.prompts import PromptHider
from dspy_live.observe.redact import redact
from dspy_live.runtime.log_context import current_log_context

Event = MutableMapping[str, Any]


def formatter(*, as_json: bool, colours: bool, hider: PromptHider | None) -> logging.Formatter:
    """Return what makes a line of a record: JSON, or text for people; ``hider`` takes a run's inputs out of it."""
    render: Any
    if as_json:
        render = structlog.processors.JSONRenderer(serializer=dumps, sort_keys=False)
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
    plain = json_line if as_json else None if colours else text_line
    return LineFormatter(plain, foreign_pre_chain=before, processors=[*after, _in_order, render])


class LineFormatter(structlog.stdlib.ProcessorFormatter):
    """Renders a record and redacts the finished line; a plain one, whose fields are all known, by a shorter way.

    Args:
        plain: renders plain lines; ``None`` where they have no shorter way.
    """

    def __init__(self, plain: Line | None, **options: Any) -> None:
        super().__init__(**options)
        self.plain = plain

    def format(self, record: logging.LogRecord) -> str:
        if self.plain is not None and getattr(record, PLAIN, False):
            message, fields = getattr(record, OURS)
            line = plain_line(
                self.plain, record.created, record.levelname, record.name, message, fields, texts_of(fields)
            )
            if line is not None:
                return line
        # The last step, on the finished line: nothing that a processor or a traceback adds escapes it.
        return redact(super().format(record))


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
