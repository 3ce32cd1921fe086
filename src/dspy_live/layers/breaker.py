"""A service that fails too often is left alone for a while."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import CircuitOpen
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service
from dspy_live.layers._relay import Watched
from dspy_live.layers._wrap import Wrapped
from dspy_live.runtime.clock import LOOP_CLOCK, Clock
from dspy_live.sansio.failures import transient
from dspy_live.sansio.limits.breaker import Breaker as Machine
from dspy_live.sansio.limits.breaker import BreakerState


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """The state; calls and failures in the window; how often it opened; how many calls it refused."""

    state: BreakerState
    calls: int
    failed: int
    opened: int
    refused: int


class Breaker:
    """Refuses calls with :class:`CircuitOpen` once too large a share of them has failed lately.

    After ``open_for`` seconds ``probes`` calls are let through. When all of them succeed it closes, when one fails
    it stays open for as long again. Only failures of the service count (``when``), not a caller's mistakes, and a call
    that its caller cancelled counts as nothing.

    Args:
        failures: the share of failed calls at which it opens, above 0 and up to 1.
        minimum: calls that the window must hold before it may open.
        window: seconds that are looked back on.
        open_for: seconds that it stays open.
        probes: calls that try whether it is well again.
        when: tells which failures count; transient ones by default.
        clock: where the time comes from; the loop's by default.
    """

    kind: ClassVar[str] = "breaker"

    def __init__(
        self,
        failures: float = 0.5,
        *,
        minimum: int = 20,
        window: float = 30.0,
        open_for: float = 10.0,
        probes: int = 1,
        when: Callable[[BaseException], bool] = transient,
        clock: Clock = LOOP_CLOCK,
    ) -> None:
        self._machine = Machine(failures, minimum, window, open_for, probes)
        self.when = when
        self.clock = clock
        self._lock = threading.Lock()
        self._refused = 0

    def __call__(self, service: Service) -> Service:
        return Wrapped(self, service)

    @property
    def state(self) -> BreakerState:
        """``"closed"`` (all is well), ``"open"`` or ``"half_open"``. An open one turns half open with the next call."""
        return self._machine.state

    def statistics(self) -> BreakerStatistics:
        with self._lock:
            calls, failed = self._machine.counts(self.clock.now())
            return BreakerStatistics(self._machine.state, calls, failed, self._machine.opened, self._refused)

    @asynccontextmanager
    async def _open(self, inner: Service, call: Call) -> AsyncIterator[Receiver[Event]]:
        began = self.clock.now()
        with self._lock:
            wait = self._machine.admit(began)
            self._refused += wait is not None
        if wait is not None:
            raise self._is_open(wait)
        watched: Watched | None = None
        failure: BaseException | None = None
        try:
            async with inner.open(call) as events:
                watched = Watched(events)
                yield watched
        except BaseException as exc:
            failure = exc
            raise
        finally:
            self._record(began, watched, failure)

    def _record(self, began: float, watched: Watched | None, failure: BaseException | None) -> None:
        if watched is not None and watched.failure is not None:
            failure = watched.failure
        left = isinstance(failure, (asyncio.CancelledError, GeneratorExit))
        proved = watched is not None and (watched.answered or watched.ended)
        with self._lock:
            if failure is not None and not left:
                self._machine.record(self.clock.now(), not self.when(failure), began)
            elif proved:
                self._machine.record(self.clock.now(), True, began)
            else:
                self._machine.abandon(began)

    def _is_open(self, wait: float) -> CircuitOpen:
        machine = self._machine
        return CircuitOpen(
            f"{machine.failures:.0%} or more of the calls in the last {machine.window:g} s failed, so none are made "
            f"for {machine.open_for:g} s; try again in {wait:.3g} s",
            retry_after=wait,
            local=True,
        )
