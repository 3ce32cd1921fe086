"""What each event says: its name on the wire and its data. Every wire that carries all events shares it."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from dspy_live.core.events import (
    Custom,
    Event,
    Partial,
    Reasoning,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
    Tool,
    Usage,
)
from dspy_live.server.errors import redacted


def payload(event: Event) -> tuple[str, dict[str, Any]]:
    """Return the event's name and its JSON object."""
    match event:
        case Usage():
            return "usage", msgspec.structs.asdict(event)
        case Started(run, program):
            return "started", {"run": run, "program": program}
        case Token(text, field, predictor, lm_call, last):
            data: dict[str, Any] = {"field": field, "text": text, "predictor": predictor, "lm_call": lm_call}
            return "token", data | {"last": True} if last else data
        case Partial(value, field, predictor, lm_call, final):
            data = {"field": field, "value": value, "predictor": predictor, "lm_call": lm_call, "final": final}
            return "partial", data
        case Status(message, module, stage):
            return "status", {"message": message, "module": module, "stage": stage}
        case Restart(predictor, lm_call, reason, fields):
            return "restart", {"predictor": predictor, "lm_call": lm_call, "reason": reason, "fields": list(fields)}
        case Reasoning(text, predictor, lm_call):
            return "reasoning", {"text": text, "predictor": predictor, "lm_call": lm_call}
        case Tool():
            return "tool", _tool(event)
        case Custom(name, data):
            return "custom", {"name": name, "data": data}
        case TextDelta(text, lm_call, predictor):
            return "text", {"text": text, "predictor": predictor, "lm_call": lm_call}
        case _:
            assert_never(event)


def _tool(event: Tool) -> dict[str, Any]:
    data: dict[str, Any] = {"name": event.name, "stage": event.stage, "id": event.id, "module": event.module}
    if event.stage == "call":
        data["arguments"] = event.arguments
    else:
        failed = event.stage == "error" and isinstance(event.result, str)
        data["result"] = redacted(event.result) if failed else event.result
        data["duration_ms"] = event.duration_ms
    return data
