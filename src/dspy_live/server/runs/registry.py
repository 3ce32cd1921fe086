"""The runs that are under way: who owns them, how they are stopped, how many there were."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from types import TracebackType
from typing import Any

from dspy_live.core.errors import Cancelled, Draining, NotFound, Overloaded
from dspy_live.runtime.scope import Scope
from dspy_live.server.errors import ClientGone
from dspy_live.server.runs.totals import RunTotals

STOP_GRACE = 5.0
"""Seconds that stopped runs have to end at a shutdown; a program that ignores its stop must not prevent it."""


class RegisteredRun:
    """One run of a server: ``async with run:`` stands around the work, and is its scope.

    Args:
        registry: counts it while it is under way.
        run_id: its id.
        key: the name of the API key that it belongs to.
    """

    __slots__ = ("_entered", "_registry", "_scope", "_stopped", "id", "key", "totals")

    def __init__(self, registry: RunRegistry, run_id: str, key: str) -> None:
        self.id = run_id
        self.key = key
        self.totals = RunTotals()
        self._registry = registry
        self._scope = Scope()
        self._entered = False
        self._stopped: BaseException | None = None

    def stop(self, error: BaseException) -> None:
        """End it: the work is cancelled, and once it has ended ``async with`` raises ``error``. The first one wins."""
        if self._entered:
            self._scope.fail(error)
        elif self._stopped is None:
            self._stopped = error

    async def __aenter__(self) -> RegisteredRun:
        """Begin. Raises :class:`Draining` while the server shuts down, and why it was stopped before it began."""
        if self._stopped is not None:
            raise self._stopped
        self._registry.check()
        await self._scope.__aenter__()
        self._entered = True
        self._registry.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, exc, trace)
        except BaseException as error:
            exc = error
            raise
        finally:
            self._registry.remove(self, exc)


class RunRegistry:
    """All runs of one server that are under way, and what became of the others.

    Args:
        limit: the most runs at once that the server's layers let in, for the statistics; ``None`` for no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.draining = False
        self.leaving = False
        """True from the beginning of a shutdown: readiness is off, and each reply closes its connection."""
        self.succeeded = self.failed = self.cancelled = self.refused = self.tokens = 0
        self.cost = 0.0
        self._began = time.monotonic()
        self._runs: dict[str, RegisteredRun] = {}
        self._durations: deque[float] = deque(maxlen=512)
        self._first: deque[float] = deque(maxlen=512)
        self._empty: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def started(self) -> int:
        """How many runs have begun; a refused one has not."""
        return len(self._runs) + self.succeeded + self.failed + self.cancelled

    def check(self) -> None:
        """Raise :class:`Draining` once the server shuts down."""
        if self.draining:
            raise Draining("the server is shutting down and takes no new runs", retry_after=5.0)

    def find(self, run_id: str, key: str) -> RegisteredRun:
        """Return a run of this key; another key's run is not found."""
        run = self._runs.get(run_id)
        if run is None or run.key != key:
            raise NotFound(f"no run {run_id!r} is under way")
        return run

    def add(self, run: RegisteredRun) -> None:
        """Count a run in."""
        self._runs[run.id] = run

    def remove(self, run: RegisteredRun, exc: BaseException | None) -> None:
        """Count a run out, with what it ended with."""
        self._runs.pop(run.id, None)
        totals = run.totals
        self.tokens += totals.tokens
        self.cost += totals.cost
        if exc is None:
            self.succeeded += 1
            self._durations.append(time.perf_counter() - totals.began)
            if totals.first is not None:
                self._first.append(totals.first - totals.began)
        elif isinstance(exc, (asyncio.CancelledError, ClientGone, Cancelled, Draining)):
            self.cancelled += 1
        elif isinstance(exc, Overloaded) and exc.details.get("local"):
            self.refused += 1
        else:
            self.failed += 1
        if self._empty is not None and not self._runs:
            self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Take no new runs, wait up to ``seconds`` for the running ones, then stop them with an error."""
        self.leaving = self.draining = True
        if self._empty is None:
            self._empty = asyncio.Event()
        if not self._runs:
            return
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            self.stop_all()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), STOP_GRACE)

    def stop_all(self) -> None:
        """Stop every run with the error that the server is shutting down."""
        for run in list(self._runs.values()):
            run.stop(Draining("the server shut down before the run had ended", retry_after=5.0))

    def statistics(self) -> dict[str, Any]:
        """Return the counts since the start of this process, and times in milliseconds of the last 512 runs."""
        return {
            "active": len(self._runs),
            "max_active": self.limit,
            "draining": self.draining,
            "uptime_s": round(time.monotonic() - self._began, 3),
            "started": self.started,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "cancelled": self.cancelled,
            "refused": self.refused,
            "tokens": self.tokens + sum(run.totals.tokens for run in self._runs.values()),
            "cost": round(self.cost, 10),
            "duration_ms": _percentiles(self._durations),
            "first_token_ms": _percentiles(self._first),
        }


def _percentiles(seconds: deque[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1000, 3) for p in (50, 95, 99)}
