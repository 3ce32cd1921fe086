"""A service that fails too often is left alone for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import CircuitOpen
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._first_word import FirstWord
from dspy_live.layers._now import loop_now
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
    it stays open for as long again. Only failures of the service count (``when``), not a caller's mistakes. A call that
    was cancelled counts as nothing, or as a success where an LM had already said something.

    Args:
        failures: the share of failed calls at which it opens, above 0 and up to 1.
        minimum: calls that the window must hold before it may open.
        window: seconds that are looked back on.
        open_for: seconds that it stays open.
        probes: calls that try whether it is well again.
        when: tells which failures count; transient ones by default.
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
    ) -> None:
        self._machine = Machine(failures, minimum, window, open_for, probes)
        self.when = when
        self._lock = threading.Lock()
        self._refused = 0

    def __repr__(self) -> str:
        return f"Breaker({self._machine.failures:g})"

    def __call__(self, service: Service) -> Service:
        async def guarded(call: Call, sink: Sink) -> Result:
            began = self._admit()
            word = FirstWord(sink)
            try:
                result = await service(call, word)
            except Exception as exc:
                self._record(began, ok=not self.when(exc))
                raise
            except BaseException:  # cancelled or stopped from outside, which says nothing about the service
                self._record(began, ok=True if word.spoke else None)
                raise
            self._record(began, ok=True)
            return result

        return guarded

    @property
    def state(self) -> BreakerState:
        """``"closed"`` (all is well), ``"open"`` or ``"half_open"``. An open one turns half open with the next call."""
        return self._machine.state

    def statistics(self) -> BreakerStatistics:
        with self._lock:
            calls, failed = self._machine.counts(loop_now())
            return BreakerStatistics(self._machine.state, calls, failed, self._machine.opened, self._refused)

    def _admit(self) -> float:
        """Let a call through and return the time, or raise :class:`CircuitOpen`."""
        began = loop_now()
        with self._lock:
            wait = self._machine.admit(began)
            self._refused += wait is not None
        if wait is not None:
            raise self._is_open(wait)
        return began

    def _record(self, began: float, ok: bool | None) -> None:
        with self._lock:
            if ok is None:
                self._machine.abandon(began)
            else:
                self._machine.record(loop_now(), ok, began)

    def _is_open(self, wait: float) -> CircuitOpen:
        machine = self._machine
        return CircuitOpen(
            f"{machine.failures:.0%} or more of the calls in the last {machine.window:g} s failed, so none are made "
            f"for {machine.open_for:g} s; try again in {wait:.3g} s",
            retry_after=wait,
            local=True,
        )
