"""Several openings, one after the other, that look like one call to the reader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import StreamBroken
from dspy_live.core.events import Event, Restart, Started
from dspy_live.core.service import Receiver, Service
from dspy_live.core.sink import Sink
from dspy_live.layers._pump import pump
from dspy_live.layers._relay import SPEECH, Attach, Ear, Relay
from dspy_live.layers._wrap import Opened

Next = Callable[[Exception, int], Awaitable[Service | None]]
"""Given a failure and how many openings there were: the service to try now, or ``None`` to give up."""


@asynccontextmanager
async def attempts(call: Call, first: Service, following: Next) -> AsyncIterator[Receiver[Event]]:
    """Open ``call`` on ``first``, and after a failure on what ``following`` says.

    Each opening is left, and its work has ended, before the next begins. When an LM has already said something, a
    ``Restart`` for each such LM call comes first; a call that is not restartable fails with :class:`StreamBroken`.
    """
    receiver = _Attempts(call, following)
    await receiver.open(first)
    try:
        yield receiver
    except BaseException as exc:
        if not await receiver.leave(exc):
            raise
    else:
        await receiver.leave(None)


class _Attempts(Relay):
    def __init__(self, call: Call, following: Next) -> None:
        super().__init__()
        self._call = call
        self._following = following
        self._openings = 0
        self._context: Opened | None = None
        self._started = False
        self._spoke: dict[int, str] = {}

    async def open(self, service: Service) -> None:
        while True:
            self._openings += 1
            context = service.open(self._call)
            try:
                self._inner = await context.__aenter__()
            except Exception as exc:
                service = await self._next_service(exc)
            else:
                self._context = context
                return

    async def leave(self, exc: BaseException | None) -> bool:
        """Leave the opening that is open; true when it took care of the exception."""
        context, self._context, self._inner = self._context, None, None
        if context is None:
            return False
        if exc is None:
            return bool(await context.__aexit__(None, None, None))
        return bool(await context.__aexit__(type(exc), exc, exc.__traceback__))

    async def _next_batch(self) -> list[Event]:
        while True:
            if self._inner is None:
                return []
            try:
                events = await self._inner.receive_many()
            except Exception as exc:
                restarts = await self._again(exc)
                if restarts:
                    return [*restarts]
                continue
            if not events:
                return []
            if passed := self._note(events):
                return passed

    async def _attached(self, inner: Attach, sink: Sink) -> Any:
        while True:
            ear = Ear(sink, self._heard)
            try:
                attach: Attach | None = getattr(self._inner, "attach", None)
                return await (attach(ear) if attach is not None else pump(self._inner, ear))
            except Exception as exc:
                if restarts := await self._again(exc):
                    sink.restart(restarts[0].reason)

    def _heard(self) -> None:
        # An LM's own service is one LM call.
        self._spoke[0] = ""

    async def _again(self, exc: Exception) -> list[Restart]:
        failure = exc
        try:
            await self.leave(exc)
        except Exception as other:
            failure = other
        spoke = self._spoke
        service = await self._next_service(failure)
        self._spoke = {}
        await self.open(service)
        reason = f"{type(failure).__name__}: another try"
        return [Restart(predictor, lm_call, reason) for lm_call, predictor in spoke.items()]

    async def _next_service(self, failure: Exception) -> Service:
        if self._spoke and not self._call.restartable:
            raise StreamBroken(
                f"the answer broke off after its first token ({type(failure).__name__}), and this door can't take "
                "words back; ask again, or use a door that understands Restart"
            ) from failure
        service = await self._following(failure, self._openings)
        if service is None:
            if self._openings > 1:
                failure.add_note(f"the last of {self._openings} tries")
            raise failure
        return service

    def _note(self, events: list[Event]) -> list[Event]:
        passed = []
        for event in events:
            if type(event) in SPEECH:
                self._spoke[event.lm_call] = event.predictor  # type: ignore[union-attr]
            elif isinstance(event, Started):
                if self._started:
                    continue  # It is still the same run.
                self._started = True
            passed.append(event)
        return passed
