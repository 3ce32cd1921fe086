"""The WebSocket, which OpenAPI has no words for: ``x-websockets`` in the document."""

from __future__ import annotations

from collections.abc import Iterable

from dspy_live.server.openapi.events import names
from dspy_live.server.openapi.parts import JSONObject, flag, object_of, or_null, ref, text, whole

_ID: JSONObject = {"type": ["string", "integer"], "description": "The client's own name of the run."}


def websockets(programs: Iterable[str]) -> JSONObject:
    """Return what each WebSocket takes and gives, by its path."""
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
    described = {
        "summary": "Runs on a WebSocket",
        "description": "A frame of plain text is a question, answered by frames of the program's last text output and "
        "at last by `[DONE]`. A frame of JSON opens the typed protocol: several runs on one socket.",
        "receives": {"oneOf": [start, cancel, credit]},
        "sends": event,
    }
    return dict.fromkeys(("/ws", *(f"/programs/{name}/ws" for name in programs)), described)
