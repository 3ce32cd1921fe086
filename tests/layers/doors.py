"""A door that can't take words back, as the plain WebSocket and OpenAI's chat are."""

from __future__ import annotations

import asyncio
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import StreamBroken
from dspy_live.core.events import SPOKEN, Event, Restart
from dspy_live.core.service import Service
from dspy_live.runtime.scope import Scope
from dspy_live.testing.scripted import Recorder


class PlainSink(Recorder):
    """Ends its call through ``scope`` when text that was given out is taken back."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

    def push(self, event: Event) -> bool:
        if isinstance(event, Restart) and any(type(said) in SPOKEN for said in self.events):
            self._scope.fail(StreamBroken(f"this door can't take words back: {event.reason}"))
        return super().push(event) and self._scope.error is None

    async def room(self) -> None:
        if self._scope.error is not None:
            await asyncio.Event().wait()
        await super().room()


async def without_restarts(service: Service, call: Call) -> list[Any]:
    """Run the call as such a door does; returns the events and the result."""
    with Scope() as scope:
        sink = PlainSink(scope)
        result = await service(call, sink)
    return [*sink.events, result]
