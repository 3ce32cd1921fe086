"""A service that does what the test tells it, step by step, and remembers what was done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dspy_live.core.call import Call
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver
from dspy_live.runtime.channel.channel import Channel


@dataclass(frozen=True, slots=True)
class Wait:
    """A step of a script: let ``seconds`` pass."""

    seconds: float


Step: TypeAlias = Event | Wait | BaseException
"""An event is sent, a :class:`Wait` waits, an exception is the stream's failure."""


@dataclass(slots=True)
class Opening:
    """One time that the service was opened; the test's hands on it.

    ``state`` is ``"open"``, then ``"left"`` when the caller has begun to leave, then ``"ended"``.
    """

    call: Call
    number: int
    channel: Channel
    state: str = "open"
    sent: list[Event] = field(default_factory=list)
    cancelled: bool = False
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, *events: Event) -> None:
        """Send events to the caller now."""
        for event in events:
            self.sent.append(event)
            self.channel.push(event)

    def end(self) -> None:
        """End the stream well."""
        self.channel.close()

    def fail(self, exc: BaseException) -> None:
        """End the stream with a failure."""
        self.channel.close(exc)


class ScriptedService:
    """Answers each opening with the next script, or leaves it to the test.

    Args:
        scripts: one sequence of steps for each opening, in order; the last one answers all further ones. With
            none, an opening waits for the test to use :meth:`opening`. A script that is an exception is raised
            when the service is opened.
        hold_exit: leaving waits until the test sets ``opening.may_end``: a slow end of the work.
    """

    def __init__(self, *scripts: Sequence[Step] | BaseException, hold_exit: bool = False) -> None:
        self.scripts = scripts
        self.hold_exit = hold_exit
        self.openings: list[Opening] = []
        self.active = 0
        self.most_active = 0
        self._opened = asyncio.Event()

    @property
    def calls(self) -> list[Call]:
        """The calls it was opened with, in order."""
        return [opening.call for opening in self.openings]

    async def opening(self, number: int = 0) -> Opening:
        """Wait until it was opened for the time ``number`` (from 0) and return that opening."""
        while len(self.openings) <= number:
            self._opened.clear()
            await self._opened.wait()
        return self.openings[number]

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Receiver[Event]]:
        number = len(self.openings)
        opening = Opening(call, number, Channel(call.buffer))
        self.openings.append(opening)
        self._opened.set()
        script = self.scripts[min(number, len(self.scripts) - 1)] if self.scripts else None
        if isinstance(script, BaseException):
            opening.state = "ended"
            raise script
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        player = asyncio.create_task(_play(opening, script)) if script is not None else None
        try:
            yield opening.channel.receiver
        except BaseException as exc:
            opening.cancelled = isinstance(exc, (asyncio.CancelledError, GeneratorExit))
            raise
        finally:
            opening.state = "left"
            opening.channel.receiver.close()
            if player is not None:
                player.cancel()
                await asyncio.wait([player])
            try:
                if self.hold_exit:
                    await opening.may_end.wait()
            finally:
                opening.state = "ended"
                self.active -= 1


async def _play(opening: Opening, script: Iterable[Step]) -> None:
    for step in script:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, BaseException):
            opening.fail(step)
            return
        else:
            opening.send(step)
    opening.end()


async def collect(service: Any, call: Call) -> list[Event]:
    """Open the call, read all its events and return them; raises what the receiver raises."""
    events: list[Event] = []
    async with service.open(call) as receiver:
        while batch := await receiver.receive_many():
            events.extend(batch)
    return events
