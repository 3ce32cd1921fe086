"""A row for every run and every LM call, with tokens, cost and duration; and the sums over them."""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable
from operator import add
from pathlib import Path
from typing import Any, cast

import orjson

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.observe.ledger.backend import Backend
from dspy_live.observe.ledger.query import Filter, Group, has_group, name_of, summaries
from dspy_live.observe.ledger.schema import CALL_COLUMNS, RUN_COLUMNS
from dspy_live.observe.ledger.sqlite import SQLiteBackend
from dspy_live.observe.ledger.sums import REAL, SUMS, Table, pruning
from dspy_live.observe.ledger.uses import uses_of
from dspy_live.observe.ledger.writer import Writer
from dspy_live.observe.redact import MAX_SECRET, redact
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.runtime.home import home_file
from dspy_live.sansio.quantities import seconds_of

MAX_CONTENT = 100_000
"""Characters of a run's inputs, and of its outputs, that are kept where that is chosen."""

_FORGOTTEN = 7 * 86_400
"""Seconds after which the last batch of a writer that writes no more is not tried again."""
_AT_ONCE = 20_000
"""Rows that one statement removes."""


def default_place() -> str:
    """Return the place of the ledger where no other is given.

    ``DSPY_LIVE_LEDGER`` (a path or a ``postgresql://`` address), else ``ledger.db`` in ``DSPY_LIVE_HOME``, else in
    ``~/.dspy_live``.
    """
    return os.environ.get("DSPY_LIVE_LEDGER") or str(home_file("ledger.db"))


def default_keep() -> float | None:
    """Return how many seconds rows are kept: ``DSPY_LIVE_LEDGER_KEEP`` (``90d``), or ``None``, for ever.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a setting that is no length of time.
    """
    setting = os.environ.get("DSPY_LIVE_LEDGER_KEEP", "").strip()
    if not setting:
        return None
    try:
        return _checked_keep(seconds_of(setting))
    except ConfigurationError as exc:
        raise ConfigurationError(f"DSPY_LIVE_LEDGER_KEEP is how long runs are kept, such as 90d: {exc}") from None


def _checked_keep(keep: float | None) -> float | None:
    if keep is not None and (isinstance(keep, bool) or not isinstance(keep, (int, float)) or not keep > 0):
        raise ConfigurationError(
            f"a ledger keeps rows for a positive number of seconds, or for ever (None); got {keep!r}"
        )
    return keep


def open_ledger(place: str | Path | None = None, *, contents: bool = False, keep: float | None = None) -> Ledger:
    """Open the ledger in a file (a path) or a database (``postgresql://…``); it is made or migrated as needed.

    Args:
        place: a path or an address; :func:`default_place` by default.
        contents: keep inputs and outputs of runs, the first 100,000 characters of each, keys taken out.
        keep: remove runs and LM calls older than so many seconds, while rows are written, once an hour;
            :func:`default_keep` by default, and without that setting all are kept.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` when it can't be opened.
    """
    place = place if place is not None else default_place()
    keep = _checked_keep(keep) if keep is not None else default_keep()
    backend: Backend
    if str(place).startswith(("postgresql://", "postgres://")):
        from dspy_live.observe.ledger.postgres import PostgresBackend

        backend = PostgresBackend(str(place))
    elif "://" in str(place):
        raise ConfigurationError(
            f"a ledger is a file or a postgresql:// address; got an address of {str(place).partition(':')[0]!r}"
        )
    else:
        backend = SQLiteBackend(Path(place).expanduser())
    return Ledger(backend, contents=contents, keep=keep)


_Counts = tuple[int, int, int, int, int, int, int, int, float, int]
"""LM calls, cache hits, prompt, completion, total, cached, reasoning and estimated tokens, cost, unpriced calls."""
_NO_COUNTS: _Counts = (0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0)
_HIT: _Counts = (0, 1, 0, 0, 0, 0, 0, 0, 0.0, 0)

_Running = tuple[float, _Counts, frozenset[tuple[str, str]]]
"""A run whose first LM call has ended: when it began, its counts, the models and predictors that it used."""


class Ledger:
    """A :class:`~dspy_live.core.observer.RunObserver` that writes rows, and the queries over them.

    A run costs it some microseconds: rows are handed to one thread, which writes four times a second. A killed process
    loses the rows since its last write.

    Args:
        backend: the database.
        contents: keep inputs and outputs.
        keep: remove rows older than so many seconds, once an hour; by default all are kept.
    """

    def __init__(self, backend: Backend, *, contents: bool = False, keep: float | None = None) -> None:
        self.backend = backend
        # Not a method of this object: the writer's thread would hold it, and it could never be garbage.
        self.writer = Writer(backend, None if keep is None else functools.partial(prune, backend, keep))
        self._contents = contents
        # When a run began; more from the end of its first LM call on.
        self._running: dict[str, float | _Running] = {}
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        weakref.finalize(self, Writer.close, self.writer, 2.0)

    def attach(self, account: Account | None = None) -> Ledger:
        """Write every run and LM call of ``account`` (the process's own) from now on."""
        if self._stop is None:
            self._stop = (account or process_account()).observe(self)
        return self

    def close(self) -> None:
        """Stop observing, write the rows that wait, and close the database."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        self.writer.close()
        self.backend.close()

    def flush(self, timeout: float | None = 10.0) -> bool:
        """Wait until everything so far is written; false when that takes over ``timeout`` seconds."""
        return self.writer.flush(timeout)

    # A RunObserver.

    def run_started(self, call: Call) -> None:
        self._running[call.id] = time.time()

    def lm_call_ended(self, record: LMRecord) -> None:
        run, model, predictor, usage, cost = record.run, record.model, record.predictor, record.usage, record.cost
        total, asked = usage.total_tokens, record.cache != "hit"
        tokens = (
            usage.prompt_tokens, usage.completion_tokens, total, usage.cached_tokens, usage.reasoning_tokens,
            total if usage.estimated else 0,
        )  # fmt: skip
        unpriced = 1 if asked and cost is None and usage else 0
        self._count(run, (1, 0, *tokens, cost or 0.0, unpriced) if asked else _HIT, (model, predictor))
        self.writer.call(
            (
                run, record.program, record.key, model, predictor, record.lm_call, time.time(), record.latency,
                record.ttft, record.error, record.cache, *tokens, cost, unpriced,
            )
        )  # fmt: skip

    def _count(self, run: str, counts: _Counts, used: tuple[str, str]) -> None:
        with self._lock:  # calls of one run may end on several threads
            running = self._running.get(run)
            if type(running) is float:
                self._running[run] = running, counts, frozenset((used,))
            elif isinstance(running, tuple):
                started, before, by = running
                counts = cast("_Counts", tuple(map(add, before, counts)))
                self._running[run] = started, counts, by if used in by else by | {used}

    def run_ended(self, record: RunRecord) -> None:
        call, error = record.call, record.error
        running = self._running.pop(call.id, None)
        if not isinstance(running, tuple):
            running = (time.time() - record.duration if running is None else running), _NO_COUNTS, frozenset()
        started, counts, used = running
        self.writer.run(
            (
                call.id, call.program, call.key, started, record.duration, record.ttft,
                None if error is None else type(error).__name__, *counts,
                content(call.inputs) if self._contents else None,
                content(record.outputs) if self._contents else None, uses_of(used),
            )
        )  # fmt: skip

    # Queries. All of them block: from an event loop, ask in a thread.

    def totals(self, chosen: Filter | None = None) -> dict[str, Any]:
        """Return the sums over the rows that ``chosen`` lets through, all by default."""
        rows = self.summary(None, chosen)
        return rows[0] if rows else {"": "", **_empty(), "runs": 0, "failed_runs": 0}

    def summary(self, by: Group | None, chosen: Filter | None = None) -> list[dict[str, Any]]:
        """Return one row per day (or model, program, …), in order, with the sums that :meth:`totals` has.

        ``runs``, ``failed_runs`` and the means ``mean_duration`` and ``mean_ttft`` (seconds) count runs; they are
        ``None`` by model and by predictor, of which a run may use several. The rest counts LM calls, also those
        outside of any run. Days and hours are of UTC.
        """
        chosen = chosen or Filter()
        groups = {
            name: {by or "": name, **_empty(), **sums} for name, sums in self._sums(by, "lm_calls", chosen).items()
        }
        if has_group(by, "runs"):
            for row in groups.values():
                row.update(runs=0, failed_runs=0)
            for name, sums in self._sums(by, "runs", chosen).items():
                row = groups.setdefault(name, {by or "": name, **_empty()})
                row.update(runs=sums["runs"], failed_runs=sums["failed_runs"])
                row["mean_duration"] = sums["duration"] / sums["runs"]
                row["mean_ttft"] = sums["ttft"] / sums["ttft_runs"] if sums["ttft_runs"] else None
        return [groups[name] for name in sorted(groups)]

    def _sums(self, by: Group | None, table: Table, chosen: Filter) -> dict[str, dict[str, Any]]:
        names = tuple(SUMS[table].added)
        groups: dict[str, dict[str, Any]] = {}
        for statement, parameters in summaries(by, table, chosen, self.backend.dialect):
            for group, count, *values in self.backend.read(statement, parameters):
                if not count:  # the one row of a sum over nothing
                    continue
                row = groups.setdefault(name_of(by, group), dict.fromkeys(names, 0))
                for name, value in zip(names, values, strict=True):
                    row[name] += float(value) if name in REAL else int(value)
        return groups

    def runs(self, chosen: Filter | None = None, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return runs, the newest first, at most ``limit``."""
        clause, parameters = (chosen or Filter()).where("runs", self.backend.dialect)
        names = [name for name in RUN_COLUMNS if name != "uses"]
        rows = self.backend.read(
            f"SELECT {', '.join(names)} FROM runs {clause} ORDER BY started DESC LIMIT ?", [*parameters, limit]
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def calls(self, chosen: Filter | None = None, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return LM calls, the newest first, at most ``limit``."""
        clause, parameters = (chosen or Filter()).where("lm_calls", self.backend.dialect)
        rows = self.backend.read(
            f"SELECT {', '.join(CALL_COLUMNS)} FROM lm_calls {clause} ORDER BY ended DESC, id DESC LIMIT ?",
            [*parameters, limit],
        )
        return [dict(zip(CALL_COLUMNS, row, strict=True)) for row in rows]

    def prune(self, older_than: float) -> int:
        """Remove runs and LM calls that are older than ``older_than`` seconds; return how many runs."""
        return prune(self.backend, older_than)


def content(value: Any) -> str | None:
    """Return a run's inputs or outputs as they are kept."""
    if value is None:
        return None
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        text = str(value)
    return redact(text[: MAX_CONTENT + MAX_SECRET])[:MAX_CONTENT]  # an image may be of megabytes


def prune(backend: Backend, older_than: float) -> int:
    """Remove runs and LM calls that are older than ``older_than`` seconds; return how many runs. Blocks."""
    limit = time.time() - older_than
    removed = _remove(backend, "runs", limit)
    if backend.dialect == "postgres":
        # Writers that were killed left their note behind.
        backend.change("DELETE FROM ledger_writers WHERE written < ?", [time.time() - _FORGOTTEN])
    if _remove(backend, "lm_calls", limit) or removed:
        for table in SUMS:
            backend.change_all(pruning(table, limit, backend.dialect))
    return removed


def _remove(backend: Backend, table: Table, limit: float) -> int:
    # Some at a time: the writers of other processes wait for each statement, for seconds at most.
    statement = f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {SUMS[table].time} < ? LIMIT ?)"
    removed = 0
    while count := backend.change(statement, [limit, _AT_ONCE]):
        removed += count
    return removed


def _empty() -> dict[str, Any]:
    return {
        "runs": None,
        "failed_runs": None,
        "mean_duration": None,
        "mean_ttft": None,
        **dict.fromkeys(SUMS["lm_calls"].added, 0),
        "total_cost": 0.0,
    }
