"""From an LM's events to a sink, for a service that has no short way of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from dspy_live.core.events import Completion, Event, Reasoning, Restart, TextDelta
from dspy_live.core.service import Receiver
from dspy_live.core.sink import Sink


async def pump(events: Receiver[Event], sink: Sink) -> Any:
    """Hand the words of an LM's events to ``sink``, waiting where it has no room; return the response."""
    response: Any = None
    while batch := await events.receive_many():
        room = True
        for event in batch:
            if isinstance(event, TextDelta):
                room = sink.text(event.text)
            elif isinstance(event, Reasoning):
                room = sink.reasoning(event.text)
            elif isinstance(event, Restart):
                sink.restart(event.reason)
            elif isinstance(event, Completion):
                response = event.response
        if not room:
            ready = asyncio.get_running_loop().create_future()
            sink.on_room(lambda ready=ready: ready.done() or ready.set_result(None))  # type: ignore[misc]
            await ready
    return response
