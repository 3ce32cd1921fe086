"""One timer for many paced streams: those that are due within a millisecond are woken together.

A timer of the event loop for each chunk of a thousand streams would cost more than the chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

_TOGETHER = 0.001
"""Seconds: wake-ups are at least this far apart, so that a busy loop isn't woken for every chunk."""


class Ticker:
    """Calls back at given times of the loop's clock, never early by more than half a millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed = float("inf")

    def at(self, due: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` at ``due``, or at the next chance when that is past."""
        heappush(self._heap, (due, next(self._order), callback))
        if due < self._armed:
            self._arm(due)

    def close(self) -> None:
        """Forget all that waits."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self, due: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = due
        self._handle = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._handle, self._armed = None, float("inf")
        now = self._loop.time()
        ready = []
        while self._heap and self._heap[0][0] <= now + _TOGETHER / 2:
            ready.append(heappop(self._heap)[2])
        for callback in ready:
            callback()
        if self._heap:
            self._arm(max(self._heap[0][0], now + _TOGETHER))
