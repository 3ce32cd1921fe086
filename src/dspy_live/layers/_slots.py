"""Slots that calls wait for, on any loop of the process: a :class:`~dspy_live.sansio.limits.gate.Gate` with futures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable
from dataclasses import dataclass

from dspy_live.core.errors import Overloaded
from dspy_live.sansio.limits.gate import Gate

_SMOOTH = 0.1
"""Weight of the newest call in the running mean of how long a slot is held."""


@dataclass(frozen=True, slots=True)
class LimitStatistics:
    """A concurrency limit now (``limit``, ``active``, ``waiting``) and since its start (the rest)."""

    limit: int
    queue: int
    active: int
    waiting: int
    admitted: int
    refused: int
    gave_up: int
    mean_seconds: float


class Slots:
    """Hands out slots. Each :meth:`acquire` that returns wants one :meth:`release`, when the work has ended."""

    def __init__(self, limit: int, queue: int) -> None:
        self.gate: Gate[asyncio.Future[None]] = Gate(limit, queue)
        self._lock = threading.Lock()
        self._admitted = 0
        self._refused = 0
        self._gave_up = 0
        self._mean = 0.0

    async def acquire(self, key: Hashable) -> None:
        """Wait for a slot. Cancelled meanwhile, it has none. Raises :class:`Overloaded` when the queue is full."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            answer = self.gate.enter(ticket, key)
            if answer == "go":
                self._admitted += 1
                return
            if answer == "refused":
                self._refused += 1
                raise self._full()
        try:
            await ticket
        except BaseException:
            self._stop_waiting(ticket, key)
            raise
        with self._lock:
            self._admitted += 1

    def release(self, held: float) -> None:
        """Give a slot back that was held for ``held`` seconds."""
        with self._lock:
            self._mean = held if not self._mean else self._mean + _SMOOTH * (held - self._mean)
            admitted = self.gate.leave()
        self._tell(admitted)

    def resize(self, limit: int) -> None:
        """Change the limit; calls that run go on."""
        with self._lock:
            admitted = self.gate.resize(limit)
        self._tell(admitted)

    def statistics(self) -> LimitStatistics:
        gate = self.gate
        return LimitStatistics(
            gate.limit, gate.queue, gate.active, gate.waiting, self._admitted, self._refused, self._gave_up, self._mean
        )

    def _stop_waiting(self, ticket: asyncio.Future[None], key: Hashable) -> None:
        with self._lock:
            self._gave_up += 1
            # A slot that was granted in the same moment goes to the next one.
            admitted = [] if self.gate.abandon(ticket, key) else self.gate.leave()
        self._tell(admitted)

    def _tell(self, admitted: list[asyncio.Future[None]]) -> None:
        for ticket in admitted:
            loop = ticket.get_loop()
            try:
                if loop is asyncio._get_running_loop():
                    _grant(ticket)
                else:
                    loop.call_soon_threadsafe(_grant, ticket)
            except RuntimeError:
                # That loop was closed with a call waiting on it: its slot goes to the next one.
                with self._lock:
                    further = self.gate.leave()
                self._tell(further)

    def _full(self) -> Overloaded:
        gate = self.gate
        wait = self._mean * (gate.waiting + 1) / gate.limit
        return Overloaded(
            f"the limit of {gate.limit} calls at once is reached and {gate.waiting} more wait, which is the most "
            f"that may; try again in {max(1.0, wait):.0f} s, or raise the limit or its queue",
            retry_after=max(1.0, wait),
            limit=gate.limit,
            queue=gate.queue,
            local=True,
        )


def _grant(ticket: asyncio.Future[None]) -> None:
    # One that was cancelled in this very moment passes its slot on by itself, in _stop_waiting.
    if not ticket.done():
        ticket.set_result(None)
