"""A service that follows a test's script, step by step, and remembers its calls; and a sink that records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Predicted, Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink


@dataclass(frozen=True, slots=True)
class Wait:
    """A step of a script: let ``seconds`` pass."""

    seconds: float


Step: TypeAlias = Event | Result | Wait | BaseException
"""An event is pushed, a :class:`Wait` waits, a result is returned, an exception is raised."""


@dataclass(slots=True)
class Attempt:
    """One time that the service was called; the test's hands on it.

    ``state`` is ``"running"``, ``"leaving"`` from a cancellation on, then ``"ended"``. ``full`` is true
    when the last push returned False.
    """

    call: Call
    number: int
    sink: Sink
    state: str = "running"
    sent: list[Event] = field(default_factory=list)
    cancelled: bool = False
    full: bool = False
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    _outcome: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def send(self, *events: Event) -> None:
        """Push events now."""
        for event in events:
            self.sent.append(event)
            self.full = not self.sink.push(event)

    def end(self, result: Result | None = None) -> None:
        """Return ``result``, an empty prediction by default."""
        if not self._outcome.done():
            self._outcome.set_result(result if result is not None else Predicted({}))

    def fail(self, exc: BaseException) -> None:
        """Raise ``exc``."""
        if not self._outcome.done():
            self._outcome.set_exception(exc)


class ScriptedService:
    """Answers each call with the next script, or leaves it to the test.

    Args:
        scripts: one sequence of steps for each call, in order; the last one answers all further ones. With none, a
            call waits for the test to use :meth:`attempt`. A script that is an exception is raised at once. One without
            a result returns an empty prediction.
        hold_exit: a call that is over waits until the test sets ``attempt.may_end``: a slow end of the work.
    """

    def __init__(self, *scripts: Sequence[Step] | BaseException, hold_exit: bool = False) -> None:
        self.scripts = scripts
        self.hold_exit = hold_exit
        self.attempts: list[Attempt] = []
        self.active = 0
        self.most_active = 0
        self._called = asyncio.Event()

    @property
    def calls(self) -> list[Call]:
        """The calls that it was given, in order."""
        return [attempt.call for attempt in self.attempts]

    async def attempt(self, number: int = 0) -> Attempt:
        """Wait until it was called for the time ``number`` (from 0) and return that attempt."""
        while len(self.attempts) <= number:
            self._called.clear()
            await self._called.wait()
        return self.attempts[number]

    async def __call__(self, call: Call, sink: Sink) -> Result:
        number = len(self.attempts)
        attempt = Attempt(call, number, sink)
        self.attempts.append(attempt)
        self._called.set()
        script = self.scripts[min(number, len(self.scripts) - 1)] if self.scripts else None
        if isinstance(script, BaseException):
            attempt.state = "ended"
            raise script
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            if script is None:
                return await attempt._outcome
            return await _play(attempt, script)
        except BaseException as exc:
            attempt.cancelled = isinstance(exc, asyncio.CancelledError)
            raise
        finally:
            attempt.state = "leaving"
            attempt._outcome.cancel()
            try:
                if self.hold_exit:
                    await attempt.may_end.wait()
            finally:
                attempt.state = "ended"
                self.active -= 1


async def _play(attempt: Attempt, script: Sequence[Step]) -> Result:
    for step in script:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, BaseException):
            raise step
        elif isinstance(step, (Predicted, Completion)):
            return step
        else:
            attempt.send(step)
            if attempt.full:
                await attempt.sink.room()
    return Predicted({})


class Recorder:
    """A sink that keeps all events. ``bound`` makes it full after so many events, until :meth:`drain`."""

    def __init__(self, bound: int | None = None) -> None:
        self.events: list[Event] = []
        self._bound = bound
        self._taken = 0
        self._drained = asyncio.Event()

    def push(self, event: Event) -> bool:
        self.events.append(event)
        return not self._full

    async def room(self) -> None:
        while self._full:
            self._drained.clear()
            await self._drained.wait()

    def drain(self) -> None:
        """Make room for as many again."""
        self._taken = len(self.events)
        self._drained.set()

    @property
    def _full(self) -> bool:
        return self._bound is not None and len(self.events) - self._taken >= self._bound


async def collect(service: Service, call: Call) -> list[Any]:
    """Run the call to its end and return its events, and its result as the last item. Raises the call's failure."""
    recorder = Recorder()
    result = await service(call, recorder)
    return [*recorder.events, result]
