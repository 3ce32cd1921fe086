"""The events of a run, as they stand in an event stream and on the typed WebSocket."""

from __future__ import annotations

import copy

import msgspec

from dspy_live.core import events
from dspy_live.server.openapi.parts import JSONObject, flag, object_of, or_null, ref, text

_KINDS: dict[str, type[msgspec.Struct]] = {
    "started": events.Started,
    "status": events.Status,
    "token": events.Token,
    "partial": events.Partial,
    "restart": events.Restart,
    "reasoning": events.Reasoning,
    "tool": events.Tool,
    "usage": events.Usage,
    "custom": events.Custom,
    "text": events.TextDelta,
}
_LEFT_OUT = {"token": ("last",), "tool": ("arguments", "result", "duration_ms")}
"""Members that are there where they say something."""


def names() -> list[str]:
    """Return the names of all events, in the order of a run."""
    return [*_KINDS, "prediction", "error", "done"]


def components() -> JSONObject:
    """Return the schemas of the events' data, and ``Event``: one event of a stream."""
    made = {f"Event.{name}": _data(name, kind) for name, kind in _KINDS.items()}
    made["Event.prediction"] = object_of(
        "The run's result, the last event but one of a run that succeeds.",
        outputs={"type": "object", "description": "One value for each output."},
        duration_ms={"type": "number"},
        run=ref("Run"),
    )
    made["Event.error"] = ref("Error") | {"description": "The run failed, after the stream had begun."}
    made["Event.done"] = text("The stream's end; on the WebSocket it is null.", const="[DONE]")
    made["Event"] = {
        "description": "One event of a stream; `data` is JSON in the stream's `data:` line.",
        "oneOf": [
            object_of(
                event=text(const=name), id=text("`RUN:SEQ`", pattern="^[0-9a-f]+:[0-9]+$"), data=ref(f"Event.{name}")
            )
            for name in names()
        ],
    }
    return made


def _data(name: str, kind: type[msgspec.Struct]) -> JSONObject:
    _, schemas = msgspec.json.schema_components((kind,))
    found = copy.deepcopy(schemas[kind.__name__])
    properties = found["properties"]
    del properties["type"]
    for each in properties.values():
        each.pop("default", None)
    if name == "tool":
        properties["arguments"] = {"type": "object", "description": "Of a call."}
        properties["duration_ms"] = or_null({"type": "number", "description": "Of a result or an error."})
    if name == "token":
        properties["last"] = flag("Only on the field's last token.")
    required = [key for key in properties if key not in _LEFT_OUT.get(name, ())]
    first = (kind.__doc__ or "").split("\n\n")[0].strip()
    return {
        "type": "object",
        "description": " ".join(first.replace(":class:", "").split()),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


EXAMPLE = """event: started
id: 0af1:1
data: {"run":"0af1","program":"qa"}

event: token
id: 0af1:2
data: {"field":"answer","text":"Paris","predictor":"predict","lm_call":1}

event: prediction
id: 0af1:3
data: {"outputs":{"answer":"Paris"},"duration_ms":812.4,"run":{"id":"0af1","usage":{},"cached":false,"truncated":false}}

event: done
id: 0af1:4
data: [DONE]

"""
