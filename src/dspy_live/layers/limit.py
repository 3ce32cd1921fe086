"""So many calls at once; some more wait; the others are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service
from dspy_live.layers._slots import LimitStatistics, Slots
from dspy_live.layers._wrap import Wrapped
from dspy_live.runtime.clock import LOOP_CLOCK, Clock

__all__ = ["Limit", "LimitStatistics"]


class Limit:
    """Runs at most ``concurrency`` calls at once. A slot is free again only when the work of its call has ended.

    Up to ``queue`` calls wait, keys taking turns; more are refused with
    :class:`~dspy_live.core.errors.Overloaded`. So ``concurrency + queue`` calls are inside at most. A call's deadline
    holds in the queue too, and leaving gives the place up.

    Args:
        concurrency: at least 1.
        queue: how many may wait; 0 refuses at once.
        key: what the queue is fair between, such as ``lambda call: call.attributes.get("key")``; by default all calls
            are alike, and first come is first served.
        clock: where the time comes from; the loop's by default.
    """

    kind: ClassVar[str] = "limit"

    def __init__(
        self,
        concurrency: int,
        *,
        queue: int = 100,
        key: Callable[[Call], Hashable] | None = None,
        clock: Clock = LOOP_CLOCK,
    ) -> None:
        self._slots = Slots(concurrency, queue, clock)
        self._key = key
        self.clock = clock

    def __call__(self, service: Service) -> Service:
        return Wrapped(self, service)

    def statistics(self) -> LimitStatistics:
        return self._slots.statistics()

    def resize(self, concurrency: int) -> None:
        """Change the limit; calls that run go on, waiting ones move up."""
        self._slots.resize(concurrency)

    @asynccontextmanager
    async def _open(self, inner: Service, call: Call) -> AsyncIterator[Receiver[Event]]:
        await self._slots.acquire(self._key(call) if self._key is not None else None, call.deadline)
        began = self.clock.now()
        try:
            async with inner.open(call) as events:
                yield events
        finally:
            self._slots.release(self.clock.now() - began)
