"""Identical calls in flight share one run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, Stop
from dspy_live.core.events import Event, Started
from dspy_live.core.service import Receiver, Service
from dspy_live.layers._relay import Relay
from dspy_live.layers._wrap import Wrapped


@dataclass(frozen=True, slots=True)
class SingleFlightStatistics:
    """Runs that were made, calls that joined one, calls without a key, and runs in flight now."""

    runs: int
    joined: int
    alone: int
    active: int


class SingleFlight:
    """Runs identical calls once and gives all of them its events, from the first one on.

    The run belongs to none of the callers: when one leaves, the others don't notice, and when the last has left it is
    cancelled. A slow reader holds nobody up: each reads at its own pace from what has come, and the run waits
    only while *all* of them are behind. The events stay in memory until the run is over and read.

    A deadline inside would be the first caller's and hold for all; put it outside. The run is opened without one.

    Args:
        key: what makes two calls identical, :func:`same_inputs` by default; a call with the key ``None`` runs alone.
            Calls of different programs or models, calls that stream and calls that don't, and restartable ones and
            others never share a run.
    """

    kind: ClassVar[str] = "single_flight"

    def __init__(self, key: Callable[[Call], Hashable | None] | None = None) -> None:
        self.key = key if key is not None else same_inputs
        # In the layer, not in the wrapped service: an LM's endpoint is wrapped anew for each call.
        self._flights: dict[tuple[object, ...], _Flight] = {}
        self._runs = 0
        self._joined = 0
        self._alone = 0
        self._active = 0

    def __call__(self, service: Service) -> Service:
        return Wrapped(self, service)

    def statistics(self) -> SingleFlightStatistics:
        return SingleFlightStatistics(self._runs, self._joined, self._alone, self._active)

    @asynccontextmanager
    async def _open(self, inner: Service, call: Call) -> AsyncIterator[Receiver[Event]]:
        key = self.key(call)
        if key is None:
            self._alone += 1
            async with inner.open(call) as events:
                yield events
            return
        flight = self._board(inner, call, key)
        seat = flight.join(call)
        try:
            yield seat
        finally:
            await flight.leave(seat)

    def _board(self, inner: Service, call: Call, key: Hashable) -> _Flight:
        whose = call.attributes.get("program"), call.attributes.get("model")
        # Futures belong to a loop, so each loop has flights of its own.
        name = (asyncio.get_running_loop(), key, *whose, call.stream, call.restartable)
        flight = self._flights.get(name)
        if flight is not None:
            self._joined += 1
            return flight
        flight = self._flights[name] = _Flight(inner, call, lambda: self._landed(name))
        self._runs += 1
        self._active += 1
        return flight

    def _landed(self, name: tuple[object, ...]) -> None:
        del self._flights[name]
        self._active -= 1


def same_inputs(call: Call) -> Hashable | None:
    """The call's inputs and options as JSON; ``None`` when they are no JSON: such a call is like no other."""
    try:
        return msgspec.json.encode([call.inputs, call.config], order="deterministic")
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None


class _Flight:
    """One run, its events so far, and those who read them."""

    def __init__(self, inner: Service, call: Call, landed: Callable[[], None]) -> None:
        self.events: list[Event] = []
        self.over = False
        self.failure: Exception | None = None
        self._landed = landed
        self._seats: dict[_Seat, None] = {}
        self._bound = call.buffer.max_size or call.buffer.size
        self._moved: asyncio.Future[None] | None = None
        self._task = asyncio.create_task(self._fly(inner, call.but(deadline=None)))

    def join(self, call: Call) -> _Seat:
        seat = _Seat(self, call)
        self._seats[seat] = None
        self.moved()
        return seat

    async def leave(self, seat: _Seat) -> None:
        """Leave; the last one to leave cancels the run and waits for its end."""
        del self._seats[seat]
        if self._seats:
            self.moved()
            return
        if not self.over:
            # From here on nobody can join: the next identical call makes a run of its own.
            self._end(None)
            self._task.cancel()
        await _ended(self._task)

    def moved(self) -> None:
        """A reader has read on, has come or has gone."""
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    async def _fly(self, inner: Service, call: Call) -> None:
        try:
            async with inner.open(call) as receiver:
                while batch := await receiver.receive_many():
                    self.events.extend(batch)
                    self._wake()
                    await self._wait_for_a_reader()
        except Exception as exc:
            self._end(exc)
        except Stop as stop:
            self._end(stop.error)
        except BaseException:
            self._end(Cancelled("the run that this call shared was cancelled"))
            raise
        else:
            self._end(None)

    async def _wait_for_a_reader(self) -> None:
        while self._seats and all(len(self.events) - seat.position >= self._bound for seat in self._seats):
            self._moved = asyncio.get_running_loop().create_future()
            await self._moved

    def _end(self, failure: Exception | None) -> None:
        if self.over:
            return
        self.over = True
        self.failure = failure
        self._landed()
        self._wake()

    def _wake(self) -> None:
        for seat in self._seats:
            seat.wake()


class _Seat(Relay):
    """One caller's place in a flight."""

    def __init__(self, flight: _Flight, call: Call) -> None:
        super().__init__()
        self.position = 0
        self._flight = flight
        self._call = call
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _next_batch(self) -> list[Event]:
        flight = self._flight
        while self.position == len(flight.events):
            if flight.failure is not None:
                raise flight.failure
            if flight.over:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        events = flight.events[self.position :]
        if self.position == 0 and isinstance(events[0], Started):
            events[0] = msgspec.structs.replace(events[0], run=self._call.id)
        self.position = len(flight.events)
        flight.moved()
        return events


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait until ``task`` has ended, through a cancellation of the waiting one, which is passed on then."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled
