"""Books the usage of a service that does not book its own: a remote server, a scripted service.

Around ``dspy_live.LM`` or a program of ours it is not needed and would count twice: their engine books.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dspy_live.core.call import Call
from dspy_live.core.events import Event, Reasoning, TextDelta, Token, Usage
from dspy_live.core.service import Layer, Receiver, Service
from dspy_live.core.usage import LMRecord, LMUsage, Meter
from dspy_live.runtime.books.account import Account, process_account


def meter(account: Account | None = None) -> Layer:
    """Return a layer that books every ``Usage`` event that passes, with the account and the meters in force.

    The meters (trackers, budgets) in force where the call is opened, and those of the call's attribute ``meters``,
    are asked before it is opened. A run that ends without any ``Usage`` is booked as one exchange that used nothing.

    Args:
        account: where to book; the process's own by default.
    """
    return lambda service: _Meter(service, account or process_account())


class _Meter:
    def __init__(self, inner: Service, account: Account) -> None:
        self._inner = inner
        self._account = account

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Receiver[Event]]:
        meters = self._account.admit(call.attributes.get("meters", ()))
        booking = _Booking(call, self._account, meters)
        try:
            async with self._inner.open(call) as events:
                yield _Reader(events, booking)
        except BaseException as exc:
            booking.end(type(exc).__name__)
            raise
        booking.end(None)


class _Booking:
    def __init__(self, call: Call, account: Account, meters: tuple[Meter, ...]) -> None:
        self._call = call
        self._account = account
        self._meters = meters
        self._began = time.monotonic()
        self._ttft: float | None = None
        self._booked = False

    def see(self, event: Event) -> None:
        if isinstance(event, Usage):
            self._book(
                event.model,
                LMUsage(
                    event.prompt_tokens,
                    event.completion_tokens,
                    event.total_tokens,
                    event.cached_tokens,
                    reasoning_tokens=event.reasoning_tokens,
                    estimated=event.estimated,
                ),
                event,
            )
        elif self._ttft is None and isinstance(event, Token | TextDelta | Reasoning):
            self._ttft = time.monotonic() - self._began

    def end(self, error: str | None) -> None:
        if error is not None or not self._booked:
            self._book(str(self._call.attributes.get("model", "")), LMUsage(), None, error)

    def _book(self, model: str, usage: LMUsage, event: Usage | None, error: str | None = None) -> None:
        self._booked = True
        attributes = self._call.attributes
        cost = event.cost if event is not None else None
        record = LMRecord(
            model=model,
            run=self._call.id,
            program=str(attributes.get("program", "")),
            predictor=event.predictor if event is not None else "",
            lm_call=event.lm_call if event is not None else 0,
            usage=usage,
            cost=self._account.price(model, usage) if cost is None and usage else cost,
            cache="hit" if event is not None and event.cached else "off",
            error=error,
            latency=time.monotonic() - self._began,
            ttft=self._ttft,
            key=str(attributes.get("key", "")),
        )
        self._account.record(record, self._meters)


class _Reader:
    def __init__(self, inner: Receiver[Event], booking: _Booking) -> None:
        self._inner = inner
        self._booking = booking

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._inner.__anext__()
        self._booking.see(event)
        return event

    async def receive_many(self) -> list[Event]:
        events = await self._inner.receive_many()
        for event in events:
            self._booking.see(event)
        return events
