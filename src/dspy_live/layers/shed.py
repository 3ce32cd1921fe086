"""With too much to do already, a call is refused at once and told when to come back."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, Overloaded
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._now import loop_now
from dspy_live.sansio.checks import positive, whole

LOOK_EVERY = 0.1
"""Seconds between two looks at the loop's lag, while calls are inside."""

_SMOOTH = 0.1


@dataclass(frozen=True, slots=True)
class ShedStatistics:
    """Calls inside now; admitted and refused ones; how late the loop was at the last look, in seconds."""

    active: int
    admitted: int
    refused: int
    lag: float


class Shed:
    """Refuses calls with :class:`Overloaded`, without any queue, once ``active`` are inside or the loop is late.

    Outermost, so that a refused call costs nothing but the refusal. ``Retry-After`` is the time in which a place
    should come free, from how long calls took lately.

    Args:
        active: calls that may be inside, waiting ones included; ``None`` for no such limit.
        lag: seconds by which the event loop may be late before it counts as overloaded; ``None`` for no such limit.
    """

    kind: ClassVar[str] = "shed"

    def __init__(self, active: int | None = None, *, lag: float | None = None) -> None:
        if active is None and lag is None:
            raise ConfigurationError("Shed needs at least one of active (calls) and lag (seconds)")
        self.active = whole("active", active, "calls") if active is not None else None
        self.lag = positive("lag", lag, "seconds") if lag is not None else None
        self._lock = threading.Lock()
        self._inside = 0
        self._admitted = 0
        self._refused = 0
        self._mean = 0.0
        self._late = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        options = [f"{self.active}"] if self.active is not None else []
        return f"Shed({', '.join(options + ([f'lag={self.lag:g}'] if self.lag is not None else []))})"

    def __call__(self, service: Service) -> Service:
        async def shed(call: Call, sink: Sink) -> Result:
            began = self._enter()
            try:
                return await service(call, sink)
            finally:
                self._leave(loop_now() - began)

        return shed

    def statistics(self) -> ShedStatistics:
        return ShedStatistics(self._inside, self._admitted, self._refused, self._late)

    def _enter(self) -> float:
        """Take a place and return the time, or raise :class:`Overloaded`."""
        with self._lock:
            refusal = self._refusal()
            if refusal is not None:
                self._refused += 1
                raise refusal
            self._inside += 1
            self._admitted += 1
        if self.lag is not None and self._timer is None:
            self._look_later()
        return loop_now()

    def _leave(self, took: float) -> None:
        with self._lock:
            self._inside -= 1
            self._mean = took if not self._mean else self._mean + _SMOOTH * (took - self._mean)
            if not self._inside:
                self._stop_looking()

    def _refusal(self) -> Overloaded | None:
        if self.active is not None and self._inside >= self.active:
            wait = max(1.0, self._mean / self.active)
            return Overloaded(
                f"{self._inside} calls are inside already, and {self.active} may be; try again in {wait:.0f} s",
                retry_after=wait,
                limit=self.active,
                local=True,
            )
        if self.lag is not None and self._late > self.lag:
            return Overloaded(
                f"the event loop is {self._late:.3g} s late, and may be {self.lag:g} s; try again in 1 s",
                retry_after=1.0,
                limit=self.lag,
                local=True,
            )
        return None

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_EVERY
        self._timer = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._late = max(0.0, loop.time() - due)
        self._look_later()

    def _stop_looking(self) -> None:
        timer, self._timer = self._timer, None
        self._late = 0.0
        if timer is not None:
            timer.cancel()
