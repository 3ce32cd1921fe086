"""Several attempts, one after the other, that look like one call to the sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from dspy_live.core.call import Call
from dspy_live.core.events import SPOKEN, Event, Restart, Result, Started, Token
from dspy_live.core.outlet import Outlet, outlet_of
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink

Next = Callable[[Call, Exception, int], tuple[Service, float] | None]
"""Given a call, its failure and the number of attempts so far: the service to try next and the seconds to wait before;
``None`` to give up."""


async def attempts(call: Call, sink: Sink, service: Service, following: Next) -> Result:
    """Run ``call`` on ``service``, and after a failure on the service that ``following`` names.

    Each attempt has ended before the next begins. When an LM has said something in it, a ``Restart`` for each such LM
    call comes before; a sink that can't take words back ends the call then.
    """
    attempt = 1
    while True:
        spoken = _SpokenCalls(sink, again=attempt > 1) if call.origin.lm_call == 0 else _SpokenCall(sink)
        try:
            return await service(call, spoken)
        except Exception as exc:
            again = following(call, exc, attempt)
            if again is None:
                if attempt > 1:
                    exc.add_note(f"the last of {attempt} tries")
                raise
            reason = f"{type(exc).__name__}: another try"
        await spoken.take_back(reason)
        service, delay = again
        attempt += 1
        if delay:
            await asyncio.sleep(delay)


class _SpokenCalls:
    """Notes which LM calls have said something. ``Started`` comes once: it is still the same run."""

    __slots__ = ("_again", "_sink", "_spoke", "room")

    def __init__(self, sink: Sink, again: bool) -> None:
        self._sink = sink
        self._again = again
        self._spoke: dict[int, str] = {}
        self.room = sink.room

    def push(self, event: Event) -> bool:
        kind = type(event)
        if kind in SPOKEN:
            if event.lm_call not in self._spoke:  # type: ignore[union-attr]
                self._spoke[event.lm_call] = event.predictor  # type: ignore[union-attr]
        elif kind is Started and self._again:
            return True
        return self._sink.push(event)

    async def take_back(self, reason: str) -> None:
        await _take_back(self._spoke.items(), self._sink, reason)


class _SpokenCall:
    """The same of one LM call, which says all in one voice: it is out of the way after the first word."""

    # ``push`` is an attribute, so that it can be exchanged for the sink's own.
    __slots__ = ("_sink", "_spoke", "push", "room")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._spoke: tuple[int, str] | None = None
        self.room = sink.room
        self.push = self._first

    def _first(self, event: Event) -> bool:
        room = self._sink.push(event)
        if type(event) in SPOKEN:
            self._spoke = event.lm_call, event.predictor  # type: ignore[union-attr]
            self.push = self._sink.push
        return room

    def outlet(self, token: Token | None) -> Outlet | None:
        return outlet_of(self._sink, token) if self._spoke else None

    async def take_back(self, reason: str) -> None:
        self.push = self._sink.push
        await _take_back(() if self._spoke is None else (self._spoke,), self._sink, reason)


async def _take_back(spoke: Iterable[tuple[int, str]], sink: Sink, reason: str) -> None:
    """Push a ``Restart`` for each LM call that has said something.

    A sink that can't take words back has no room from there on: the call ends here, before anybody is asked again.
    """
    room = True
    for lm_call, predictor in spoke:
        room = sink.push(Restart(predictor, lm_call, reason)) and room
    if not room:
        await sink.room()
