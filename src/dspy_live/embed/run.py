"""One run for the host: what it pushes is sent as far as the host has room, and its result after it."""

from __future__ import annotations

import asyncio
from collections import deque

from dspy_live.core.call import Call
from dspy_live.core.events import Event, Partial, Predicted, Token, Usage
from dspy_live.core.service import Service
from dspy_live.embed.failures import failure_of
from dspy_live.embed.outbox import End, Outbox
from dspy_live.embed.wire import Prediction, Start
from dspy_live.runtime.scope import Room


class HostRun:
    """Drives one run, and is its sink. The end is reported apart, when the work has ended and all else was sent."""

    def __init__(self, command: Start, service: Service, outbox: Outbox) -> None:
        self._command = command
        self._service = service
        self._outbox = outbox
        self._credits = command.credits
        self._fields = None if command.fields is None else frozenset(command.fields)
        # Sources pause when it is told them: no more waits than what they had in hand.
        self._waiting: deque[Event | Prediction] = deque()
        self._room = Room()
        self._all_sent = Room()
        self._end: End = failure_of(asyncio.CancelledError())

    async def drive(self, inputs: dict[str, object]) -> None:
        """Run to the end. Cancelling it ends the run, and returns when it has ended."""
        call = Call(inputs, stream=self._command.stream, config=self._command.config)
        try:
            end: End = True
            try:
                result = await self._service(call, self)
            except Exception as exc:
                end = failure_of(exc)
            else:
                assert isinstance(result, Predicted)
                self._tell(Prediction(result.outputs))
                del result  # so that the outbox is the last to hold it
            await self._all_sent.wait()
            self._end = end
        except BaseException as exc:
            self._end = failure_of(exc)

    def report(self) -> None:
        """Tell the host that the run has ended, and how."""
        self._outbox.send(self._command.id, [], self._end)

    def credit(self, n: int) -> None:
        """The host has room for ``n`` more events."""
        if self._credits is not None:
            self._credits += n
            self._send()

    def push(self, event: Event) -> bool:
        if self._wanted(event):
            self._tell(event)
        return self._room.open

    async def room(self) -> None:
        await self._room.wait()

    def _wanted(self, event: Event) -> bool:
        if not self._command.stream:
            return type(event) is Usage
        return self._fields is None or not isinstance(event, (Token, Partial)) or event.field in self._fields

    def _tell(self, event: Event | Prediction) -> None:
        self._waiting.append(event)
        self._send()

    def _send(self) -> None:
        """Send what waits, as far as there are credits. There is room while some are left."""
        n = len(self._waiting)
        if self._credits is not None:
            n = min(n, self._credits)
            self._credits -= n
            self._room.set(self._credits > 0)
        if n:
            self._outbox.send(self._command.id, [self._waiting.popleft() for _ in range(n)])
        self._all_sent.set(not self._waiting)
