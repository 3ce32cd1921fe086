"""The runs that are under way: how many there may be, who owns them, how they are stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from types import TracebackType
from typing import Any

from dspy_live.core.errors import Draining, LiveError, NotFound, Overloaded
from dspy_live.server.errors import ClientGone
from dspy_live.server.runs.totals import Account

LAST_WORDS = 5.0
"""Seconds that stopped runs have to end at a shutdown; a program that ignores its stop must not prevent it."""


class ActiveRun:
    """One run while it is under way; a context manager around the work.

    :meth:`stop` ends it from outside: the work is cancelled and the ``with`` block raises the error
    that was given, once the work has really ended.
    """

    __slots__ = ("_runs", "_task", "account", "id", "key", "program", "stopped", "tokens")

    def __init__(self, runs: ActiveRuns, run_id: str, key: str, program: str) -> None:
        self.id = run_id
        self.key = key
        self.program = program
        self.account = Account()
        self.tokens = 0
        self.stopped: LiveError | None = None
        self._runs = runs
        self._task: asyncio.Task[Any] | None = None

    def stop(self, error: LiveError) -> None:
        """Cancel the work; the first reason given is the one that counts."""
        if self.stopped is None and self._task is not None:
            self.stopped = error
            self._task.cancel()

    def count(self, tokens: int) -> None:
        """Set the number of tokens sent so far; the first one is timed."""
        if tokens and not self.tokens:
            self.account.first = time.perf_counter()
        self.tokens = tokens

    def __enter__(self) -> ActiveRun:
        self._task = asyncio.current_task()
        self._runs.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        ours = self.stopped is not None and isinstance(exc, asyncio.CancelledError)
        self._runs.remove(self, self.stopped if ours else exc)
        if ours and self.stopped is not None and task is not None and task.uncancel() == 0:
            raise self.stopped from None


class ActiveRuns:
    """All runs of one server.

    Args:
        limit: the most runs at once, or ``None`` for no limit here.
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"max_active must be at least 1; got {limit!r}")
        self.limit = limit
        self.draining = False
        self.started = self.succeeded = self.failed = self.cancelled = self.tokens = 0
        self.cost = 0.0
        self._began = time.monotonic()
        self._active: dict[str, ActiveRun] = {}
        self._durations: deque[float] = deque(maxlen=512)
        self._first: deque[float] = deque(maxlen=512)
        self._empty: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._active)

    def enter(self, run_id: str, key: str, program: str) -> ActiveRun:
        """Return a new run to enter; raise :class:`Draining` or :class:`Overloaded` when there is no room."""
        self.check()
        return ActiveRun(self, run_id, key, program)

    def check(self) -> None:
        """Raise :class:`Draining` or :class:`Overloaded` when there is no room for another run."""
        if self.draining:
            raise Draining("the server is shutting down and takes no new runs", retry_after=5.0)
        if self.limit is not None and len(self._active) >= self.limit:
            raise Overloaded(
                f"{self.limit} runs are under way, the most that this server takes; try again", retry_after=1.0
            )

    def find(self, run_id: str, key: str) -> ActiveRun:
        """Return a run of this key; another key's run is not found."""
        run = self._active.get(run_id)
        if run is None or run.key != key:
            raise NotFound(f"no run {run_id!r} is under way")
        return run

    def add(self, run: ActiveRun) -> None:
        """Count a run in."""
        self.started += 1
        self._active[run.id] = run

    def remove(self, run: ActiveRun, exc: BaseException | None) -> None:
        """Count a run out, with what it ended with."""
        self._active.pop(run.id, None)
        account = run.account
        self.tokens += run.tokens
        self.cost += account.cost
        if exc is None:
            self.succeeded += 1
            self._durations.append(time.perf_counter() - account.began)
            if account.first is not None:
                self._first.append(account.first - account.began)
        elif isinstance(exc, (asyncio.CancelledError, ClientGone)) or run.stopped is not None:
            self.cancelled += 1
        else:
            self.failed += 1
        if self._empty is not None and not self._active:
            self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Take no new runs, wait up to ``seconds`` for the running ones, then stop them with an error."""
        self.draining = True
        if self._empty is None:
            self._empty = asyncio.Event()
        if not self._active:
            return
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            self.stop_all()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), LAST_WORDS)

    def stop_all(self) -> None:
        """Stop every run with the error that the server is shutting down."""
        for run in list(self._active.values()):
            run.stop(Draining("the server shut down before the run had ended", retry_after=5.0))

    def statistics(self) -> dict[str, Any]:
        """Return the figures of this process: counts since the start, times in milliseconds of the last 512 runs."""
        return {
            "active": len(self._active),
            "max_active": self.limit,
            "draining": self.draining,
            "uptime_s": round(time.monotonic() - self._began, 3),
            "started": self.started,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "cancelled": self.cancelled,
            "tokens": self.tokens + sum(run.tokens for run in self._active.values()),
            "cost": round(self.cost, 10),
            "duration_ms": _percentiles(self._durations),
            "first_token_ms": _percentiles(self._first),
        }


def _percentiles(seconds: deque[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1000, 3) for p in (50, 95, 99)}
