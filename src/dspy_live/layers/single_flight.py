"""Identical calls in flight share one run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, Stop
from dspy_live.core.events import Event, Result, Started
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._same import same_question, who_answers
from dspy_live.runtime.scope import Room, ended

AHEAD = 64
"""Events that a run may be ahead of the caller that is furthest, before it waits."""


@dataclass(frozen=True, slots=True)
class SingleFlightStatistics:
    """Runs that were made, calls that joined one, calls without a key, and runs in flight now."""

    runs: int
    joined: int
    alone: int
    active: int


class SingleFlight:
    """Runs identical calls once and gives all of them its events, from the first one on, and its result.

    The run belongs to none of the callers: when one leaves, the others don't notice, and when the last has left it is
    cancelled and waited for. A slow caller holds nobody up: each takes the events at its own pace, and the run waits
    only while *all* of them are behind. The events stay in memory until the run is over.

    A deadline inside would be the first caller's and hold for all; put it outside. The run is made without one.

    Args:
        key: calls with equal keys are identical; inputs, arguments and options by default. A call with the key ``None``
            runs alone. Calls of different programs, versions or LMs never share a run, nor do calls that stream and
            calls that don't.
    """

    kind: ClassVar[str] = "single_flight"

    def __init__(self, key: Callable[[Call], Hashable | None] = same_question) -> None:
        self.key = key
        # In the layer, not in the function around the service: an LM's endpoint is wrapped anew for each call.
        self._flights: dict[tuple[object, ...], _Flight] = {}
        self._runs = 0
        self._joined = 0
        self._alone = 0

    def __repr__(self) -> str:
        return "SingleFlight()"

    def statistics(self) -> SingleFlightStatistics:
        return SingleFlightStatistics(self._runs, self._joined, self._alone, len(self._flights))

    def __call__(self, service: Service) -> Service:
        async def shared(call: Call, sink: Sink) -> Result:
            key = self.key(call)
            if key is None:
                self._alone += 1
                return await service(call, sink)
            flight = self._flight(service, call, key)
            seat = _Seat(flight, call, sink)
            flight.seats.append(seat)
            try:
                return await seat.fly()
            finally:
                await flight.leave(seat)

        return shared

    def _flight(self, service: Service, call: Call, key: Hashable) -> _Flight:
        # Futures belong to a loop, so each loop has flights of its own.
        name = (asyncio.get_running_loop(), *who_answers(call), call.stream, key)
        flight = self._flights.get(name)
        if flight is not None:
            self._joined += 1
            return flight
        self._runs += 1
        flight = self._flights[name] = _Flight(service, call, lambda: self._flights.pop(name))
        return flight


class _Flight:
    """One run and its events so far: a sink with many readers. One that keeps up is pushed to directly."""

    def __init__(self, service: Service, call: Call, landed: Callable[[], object]) -> None:
        self.events: list[Event] = []
        self.seats: list[_Seat] = []
        self._room = Room()
        self._landed: Callable[[], object] | None = landed
        if call.deadline is not None:
            call = call.but(deadline=None)
        self.run = asyncio.get_running_loop().create_task(service(call, self))
        self.run.add_done_callback(self._over)

    def push(self, event: Event) -> bool:
        self.events.append(event)
        kept_up = False
        for seat in self.seats:
            kept_up = seat.push(event) or kept_up
        return kept_up or self.moved()

    async def room(self) -> None:
        await self._room.wait()

    def moved(self) -> bool:
        """Look whether all are behind, after an event was pushed or taken."""
        behind = len(self.events) - AHEAD
        self._room.set(any(seat.position > behind for seat in self.seats))
        return self._room.open

    async def leave(self, seat: _Seat) -> None:
        """Give up a seat. The last one to leave cancels the run and waits for its end."""
        self.seats.remove(seat)
        if self.seats:
            return
        self._land()
        self.run.cancel()
        await ended(self.run)

    def result(self) -> Result:
        """Return the result of the run, which has ended, or raise its failure."""
        if self.run.cancelled():
            raise Cancelled("the run that this call shared was cancelled")
        failure = self.run.exception()
        if isinstance(failure, Stop):
            raise failure.error
        return self.run.result()

    def _over(self, run: asyncio.Task[Result]) -> None:
        if not run.cancelled():
            run.exception()  # there may be nobody left to hear of it
        self._land()
        for seat in self.seats:
            seat.wake()

    def _land(self) -> None:
        """From here on nobody joins: the next identical call makes a run of its own."""
        landed, self._landed = self._landed, None
        if landed is not None:
            landed()


class _Seat:
    """One caller's place in a flight. It is live while the caller has had all events and has room for the next."""

    __slots__ = ("_call", "_flight", "_live", "_sink", "_waiter", "position")

    def __init__(self, flight: _Flight, call: Call, sink: Sink) -> None:
        self._flight = flight
        self._call = call
        self._sink = sink
        self._live = False
        self._waiter: asyncio.Future[None] | None = None
        self.position = 0

    async def fly(self) -> Result:
        flight = self._flight
        while True:
            while self.position < len(flight.events):
                room = self._hand(flight.events[self.position])
                flight.moved()
                if not room:
                    await self._sink.room()
            if flight.run.done():
                return flight.result()
            self._live = True
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            if not self._live:
                await self._sink.room()

    def push(self, event: Event) -> bool:
        """Hand on an event that has come this moment. False when the caller is behind, or is now without room."""
        if not self._live:
            return False
        self._live = self._hand(event)
        if not self._live:
            self.wake()
        return self._live

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _hand(self, event: Event) -> bool:
        if self.position == 0 and isinstance(event, Started):
            event = Started(self._call.id, event.program)
        self.position += 1  # before the push: nothing comes twice
        return self._sink.push(event)
