"""So many calls at once; some more wait; the others are refused."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._now import loop_now
from dspy_live.layers._slots import LimitStatistics, Slots

__all__ = ["Limit", "LimitStatistics"]


class Limit:
    """Runs at most ``concurrency`` calls at once. A slot is free again only when the work of its call has ended.

    Up to ``queue`` calls wait, keys taking turns; more are refused with
    :class:`~dspy_live.core.errors.Overloaded`. So ``concurrency + queue`` calls are inside at most. A call that
    is cancelled in the queue, by its deadline or its caller, gives its place up.

    Args:
        concurrency: at least 1.
        queue: how many may wait; 0 refuses at once.
        key: calls of different keys take turns in the queue, such as ``lambda call: call.key``; by default all calls
            are alike, and first come is first served.
    """

    kind: ClassVar[str] = "limit"

    def __init__(
        self,
        concurrency: int,
        *,
        queue: int = 100,
        key: Callable[[Call], Hashable] | None = None,
    ) -> None:
        self._slots = Slots(concurrency, queue)
        self._key = key

    def __call__(self, service: Service) -> Service:
        async def limited(call: Call, sink: Sink) -> Result:
            slots = self._slots
            await slots.acquire(self._key(call) if self._key is not None else None)
            began = loop_now()
            try:
                return await service(call, sink)
            finally:
                slots.release(loop_now() - began)

        return limited

    def __repr__(self) -> str:
        gate = self._slots.gate
        return f"Limit({gate.limit}, queue={gate.queue})"

    def statistics(self) -> LimitStatistics:
        return self._slots.statistics()

    def resize(self, concurrency: int) -> None:
        """Change the limit; calls that run go on, waiting ones move up."""
        self._slots.resize(concurrency)
