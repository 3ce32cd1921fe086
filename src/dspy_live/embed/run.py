"""One run for the host: opened, sent as far as the host has room, and closed when nobody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dspy_live.core.call import Buffer, Call
from dspy_live.core.events import Event, Partial, Predicted, Token, Usage
from dspy_live.core.service import Service
from dspy_live.embed.failures import failure_of
from dspy_live.embed.outbox import End, Outbox
from dspy_live.embed.wire import Start

_MOST = 1024
"""Events of one run that wait in Python at most, however much room the host has."""


class HostRun:
    """Drives one run. The end is reported apart, after everything else, when the work has really ended."""

    def __init__(self, command: Start, service: Service, outbox: Outbox) -> None:
        self._command = command
        self._service = service
        self._outbox = outbox
        self._credits = command.credits
        self._fields = None if command.fields is None else frozenset(command.fields)
        self._room = asyncio.Event()
        self._end: End = failure_of(asyncio.CancelledError())

    def credit(self, n: int) -> None:
        """The host has room for ``n`` more events."""
        if self._credits is not None:
            self._credits += n
            self._room.set()

    async def drive(self, inputs: dict[str, object]) -> None:
        """Run to the end. Cancelling it ends the run, and returns when it has ended."""
        command = self._command
        bound = _MOST if self._credits is None else max(1, min(self._credits, _MOST))
        call = Call(inputs, stream=command.stream, config=command.config, buffer=Buffer(size=bound))
        try:
            # Not a Door: the host gives a permit back when the work has ended, and not before.
            async with self._service.open(call) as events:
                while batch := await events.receive_many():
                    await self._send(self._wanted(batch))
            self._end = True
        except BaseException as exc:
            self._end = failure_of(exc)

    def report(self) -> None:
        """Tell the host that the run has ended, and how."""
        self._outbox.send(self._command.id, [], self._end)

    def _wanted(self, batch: list[Event]) -> list[Event]:
        if not self._command.stream:
            return [event for event in batch if type(event) is Predicted or type(event) is Usage]
        names = self._fields
        if names is None:
            return batch
        return [event for event in batch if not isinstance(event, (Token, Partial)) or event.field in names]

    async def _send(self, events: Sequence[Event]) -> None:
        """Send all of ``events``, waiting for room as often as it takes; not reading meanwhile is the backpressure."""
        sent = 0
        while sent < len(events):
            if self._credits is None:
                part = list(events[sent:])
            else:
                while self._credits <= 0:
                    self._room.clear()
                    await self._room.wait()
                part = list(events[sent : sent + self._credits])
                self._credits -= len(part)
            self._outbox.send(self._command.id, part)
            sent += len(part)
