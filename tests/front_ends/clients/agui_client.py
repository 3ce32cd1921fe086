"""What AG-UI's Python types make of the server: ``python agui_client.py URL`` prints one JSON object."""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from ag_ui.core import Event, RunAgentInput, UserMessage
from pydantic import TypeAdapter

events: TypeAdapter[Any] = TypeAdapter(Event)
given = RunAgentInput(
    thread_id="t", run_id="r", state={}, messages=[UserMessage(id="1", content="Why? [sim reasoning=5 tps=500]")],
    tools=[], context=[], forwarded_props={},
)  # fmt: skip
body = given.model_dump_json(by_alias=True, exclude_none=True).encode()
request = urllib.request.Request(
    sys.argv[1] + "/programs/agent/agui", body, {"content-type": "application/json", "accept": "text/event-stream"}
)
with urllib.request.urlopen(request, timeout=60) as reply:
    lines = [line[6:] for line in reply.read().decode().split("\n") if line.startswith("data: ")]
read = [events.validate_json(line) for line in lines]
print(json.dumps({"types": [event.type.value for event in read], "extra": [sorted(e.model_extra or {}) for e in read]}))
