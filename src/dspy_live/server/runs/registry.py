"""The runs that are under way: who owns them, how they are stopped, how many there were."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import Any, Self

from dspy_live.core.errors import Cancelled, Draining, NotFound, Overloaded
from dspy_live.runtime.scope import OVER, Scope
from dspy_live.server.errors import BadRequest, ClientGone
from dspy_live.server.lm_watch import LMWatch
from dspy_live.server.runs.totals import RunTotals

_LONGEST_NAME = 128
_CLIENTS_NAME = re.compile(rf"(?!\.\.?$)[\w.-]{{1,{_LONGEST_NAME}}}", re.ASCII)

STOP_GRACE = 5.0
"""Seconds that stopped runs have to end at a shutdown; a program that ignores its stop must not prevent it."""


def may_name_a_run(text: str) -> bool:
    """True for what can be a run's id, or its client's name for it."""
    return _CLIENTS_NAME.fullmatch(text) is not None


class RegisteredRun(Scope):
    """One run of a server: ``with run:`` stands around the work, and is its scope.

    Args:
        registry: counts it while it is under way.
        run_id: its id.
        key: the name of the API key that it belongs to.
    """

    __slots__ = ("_registry", "id", "key", "totals")

    def __init__(self, registry: RunRegistry, run_id: str, key: str) -> None:
        Scope.__init__(self)
        self.id = run_id
        self.key = key
        self.totals = RunTotals()
        self._registry = registry

    stop = Scope.fail
    """End it: the work is cancelled, and once it has ended ``with`` raises the error. The first one wins."""

    def __enter__(self) -> Self:
        """Begin. Raises :class:`Draining` while the server shuts down, and why it was stopped before it began."""
        if self.error is not None:
            raise self.error
        self._registry.add(self)
        return Scope.__enter__(self)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            Scope.__exit__(self, kind, exc, trace)
        except BaseException as error:
            exc = error
            raise
        finally:
            self.error = OVER  # not the failure, whose traceback holds all that the run held
            self._registry.remove(self, exc)
            del exc


class RunRegistry:
    """All runs of one server that are under way, and what became of the others.

    Args:
        limit: the most runs at once that the server's layers let in, for the statistics; ``None`` for no limit.
        lm: learns from the runs whether the LM answers.
    """

    def __init__(self, limit: int | None = None, lm: LMWatch | None = None) -> None:
        self.limit = limit
        self.lm = lm or LMWatch()
        self.draining = False
        self.leaving = False
        """True from the beginning of a shutdown: readiness is off, and each reply closes its connection."""
        self.succeeded = self.failed = self.cancelled = self.refused = self.tokens = 0
        self.cost = 0.0
        self._began = time.monotonic()
        self._runs: dict[str, RegisteredRun] = {}
        self._called: dict[tuple[str, str], list[str]] = {}
        self._durations: deque[float] = deque(maxlen=512)
        self._first: deque[float] = deque(maxlen=512)
        self._empty: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def started(self) -> int:
        """How many runs have begun; a refused one has not."""
        return len(self._runs) + self.succeeded + self.failed + self.cancelled

    def find(self, run_id: str, key: str) -> RegisteredRun:
        """Return a run of this key; another key's run is not found."""
        return self.find_all(run_id, key)[0]

    def find_all(self, run_id: str, key: str) -> list[RegisteredRun]:
        """Return the run of this key with that id, or those to which its clients gave that name.

        Raises :class:`NotFound` where there is none; another key's runs are not found.
        """
        found = self.named(run_id, key)
        if not found:
            raise NotFound(f"no run {run_id!r} is under way")
        return found

    def knows(self, run_id: str, key: str) -> bool:
        """True where :meth:`find_all` finds a run."""
        return bool(self.named(run_id, key))

    def named(self, run_id: str, key: str) -> list[RegisteredRun]:
        """As :meth:`find_all`, with an empty list where there is none."""
        ids = (run_id, *self._called.get((key, run_id), ()))
        return [run for one in ids if (run := self._runs.get(one)) is not None and run.key == key]

    @contextlib.contextmanager
    def called(self, name: str, run_id: str, key: str) -> Iterator[None]:
        """While inside, let a run be found by its client's own name for it too.

        Raises :class:`BadRequest` for a name of another form than an id.
        """
        if not may_name_a_run(name):
            raise BadRequest(
                f"X-Client-Run-Id is up to {_LONGEST_NAME} letters, digits, '_', '.' and '-', and neither '.' nor "
                f"'..'; got {name[:80]!r}"
            )
        ids = self._called.setdefault((key, name), [])
        ids.append(run_id)
        try:
            yield
        finally:
            ids.remove(run_id)
            if not ids:
                del self._called[key, name]

    def add(self, run: RegisteredRun) -> None:
        """Count a run in. Raises :class:`Draining` once the server shuts down."""
        if self.draining:
            raise Draining("the server is shutting down and takes no new runs", retry_after=5.0)
        self._runs[run.id] = run

    def remove(self, run: RegisteredRun, exc: BaseException | None) -> None:
        """Count a run out, with what it ended with."""
        self._runs.pop(run.id, None)
        totals = run.totals
        self.tokens += totals.tokens
        self.cost += totals.cost
        if exc is not None or totals.lm_calls > totals.cached_calls:
            self.lm.run_ended(exc)
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
            "duration_ms": percentiles(self._durations),
            "first_token_ms": percentiles(self._first),
        }

    def recent(self) -> tuple[list[float], list[float]]:
        """Return how long the last 512 runs took, and how long until their first token, in seconds."""
        return list(self._durations), list(self._first)


def percentiles(seconds: Collection[float]) -> dict[str, float] | None:
    """Return the 50th, 95th and 99th percentile in milliseconds, ``None`` of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1000, 3) for p in (50, 95, 99)}
