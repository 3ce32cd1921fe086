"""The WebSocket, which OpenAPI has no words for: ``x-websockets`` in the document."""

from __future__ import annotations

from collections.abc import Mapping

from dspy_live.server.openapi.events import names
from dspy_live.server.openapi.examples import inputs_of
from dspy_live.server.openapi.parts import JSONObject, flag, object_of, or_null, ref, text, whole
from dspy_live.server.served import ServedProgram

_ID: JSONObject = {"type": ["string", "integer"], "description": "The client's own name of the run."}


def websockets(programs: Mapping[str, ServedProgram]) -> JSONObject:
    """Return what each WebSocket takes and gives, by its path; the first program is behind ``/ws``."""
    frames = _frames()
    first = next(iter(programs.values()))
    paths = {"/ws": first} | {f"/programs/{name}/ws": program for name, program in programs.items()}
    return {path: frames | {"examples": _examples(program)} for path, program in paths.items()}


def _examples(program: ServedProgram) -> JSONObject:
    """Return frames by what they do; in this order, each can be sent."""
    inputs = next(iter(inputs_of(program.schema).values()))
    made = {
        "start": {"type": "start", "id": 1, "inputs": inputs},
        "start with credit": {"type": "start", "id": 2, "inputs": inputs, "credit": 10},
        "credit": {"type": "credit", "id": 2, "n": 50},
        "cancel": {"type": "cancel", "id": 2},
    }
    return {name: {"value": frame} for name, frame in made.items()}


def _frames() -> JSONObject:
    start = object_of(
        "Start a run.",
        required=["type", "id", "inputs"],
        type=text(const="start"),
        id=_ID,
        inputs={"type": "object"},
        program=text(),
        config=or_null(ref("Options")),
        stream=flag(),
        credit=whole("Send that many tokens, and then none until there is more credit.", minimum=0),
    )
    cancel = object_of("Stop a run.", type=text(const="cancel"), id=_ID)
    credit = object_of("Allow more tokens.", type=text(const="credit"), id=_ID, n=whole(minimum=1))
    event = object_of("One event of a run.", id=_ID, event=text(enum=names()), seq=whole(), data={})
    return {
        "summary": "Runs on a WebSocket",
        "description": "A frame of plain text is a question, answered by frames of the program's last text output and "
        "at last by `[DONE]`. A frame of JSON opens the typed protocol: several runs on one socket.",
        "receives": {"oneOf": [start, cancel, credit]},
        "sends": event,
    }
