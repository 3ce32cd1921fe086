"""Tokens, cost, calls and cache hits of a block of code, or of the whole process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from dspy_live.core.usage import LMRecord
from dspy_live.observe.export import write_table
from dspy_live.observe.usage_statistics import UsageStatistics
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.runtime.books.totals import Totals, TotalsTable

DIRECT = "(direct)"
"""The name under which LM calls outside of any predictor or program are counted."""


class UsageTracker:
    """Counts tokens, cost, calls and cache hits.

    As it is, it shows the usage of the whole process; :meth:`reset` starts it from zero without touching other
    trackers. As a context manager it counts the LM calls of its block, by this task, the tasks it starts, and DSPy's
    own threads, and goes on showing that afterwards::

        with UsageTracker() as usage:
            program(question="...")
        print(usage.get_stats()["total_cost"])

    Blocks nest, and run side by side without mixing. One tracker counts one block at a time.

    Args:
        account: the account to read; the process's own by default.
    """

    def __init__(self, account: Account | None = None) -> None:
        self._account = account or process_account()
        self._own: TotalsTable | None = None
        self._baseline = TotalsTable()
        self._entered: AbstractContextManager[None] | None = None

    def __enter__(self) -> UsageTracker:
        if self._entered is not None:
            raise RuntimeError("this UsageTracker already counts a block; make a second one for another")
        if self._own is None:
            self._own, self._baseline = TotalsTable(), TotalsTable()
        entered = self._account.carrier.entering(self)
        entered.__enter__()
        self._entered = entered
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            entered.__exit__(kind, error, trace)

    def check(self) -> None:
        """Refuse nothing: a tracker only counts."""

    def record(self, record: LMRecord) -> None:
        """Count one exchange; the account calls it."""
        if self._own is not None:
            self._own.add(record)

    def reset(self) -> None:
        """Count from zero from now on. The account, budgets, the ledger and other trackers keep their sums."""
        self._baseline = self._source().copy()

    def get_stats(self) -> UsageStatistics:
        """Return the usage since the last :meth:`reset`, as a dict that JSON can hold.

        Besides the sums of :class:`~dspy_live.runtime.books.totals.Totals` it has ``unpriced_models`` (names),
        ``by_model``, ``by_predictor`` and ``by_module`` (the predictor's path or the module's: each module has all
        that its predictors used) and ``by_program`` (by name, each again with ``by_predictor``).
        """
        return cast("UsageStatistics", stats_of(self._totals()))

    def export(self, path: str | Path) -> Path:
        """Write the statistics to a file and return its path.

        ``.json`` holds :meth:`get_stats`; ``.jsonl`` and ``.csv`` have one row for each program, model, predictor and
        key. Another suffix is a :class:`~dspy_live.core.errors.ConfigurationError`. The file is replaced in one step.
        """
        return write_table(path, rows_of(self._totals()), whole=stats_of(self._totals()))

    def _source(self) -> TotalsTable:
        return self._own if self._own is not None else self._account.totals

    def _totals(self) -> TotalsTable:
        return self._source().minus(self._baseline)


def stats_of(totals: TotalsTable) -> dict[str, Any]:
    """Return the sums of ``totals`` as :meth:`UsageTracker.get_stats` gives them."""
    items = totals.items()
    stats = _sum(total for _, total in items).as_dict()
    stats["unpriced_models"] = sorted({key.model for key, total in items if total.unpriced_calls})
    stats["by_model"] = _grouped((key.model, total) for key, total in items)
    stats["by_predictor"] = _grouped((key.predictor or DIRECT, total) for key, total in items)
    stats["by_module"] = _grouped((module or "self", total) for key, total in items for module in set(key.modules))
    stats["by_program"] = {}
    for name in dict.fromkeys(key.program for key, _ in items):
        of_program = [(key, total) for key, total in items if key.program == name]
        stats["by_program"][name or DIRECT] = {
            **_sum(total for _, total in of_program).as_dict(),
            "by_predictor": _grouped((key.predictor or DIRECT, total) for key, total in of_program),
        }
    return stats


def rows_of(totals: TotalsTable) -> list[dict[str, Any]]:
    """Return one flat row per program, model, predictor and key."""
    by_row: dict[tuple[str, str, str, str], Totals] = {}
    for key, total in totals.items():
        row = (key.program, key.model, key.predictor, key.key)
        by_row[row] = by_row.get(row, Totals()).plus(total)
    names = ("program", "model", "predictor", "key")
    return [{**dict(zip(names, row, strict=True)), **total.as_dict()} for row, total in by_row.items()]


def _sum(totals: Iterable[Totals]) -> Totals:
    result = Totals()
    for total in totals:
        result = result.plus(total)
    return result


def _grouped(pairs: Iterable[tuple[str, Totals]]) -> Mapping[str, dict[str, Any]]:
    groups: dict[str, Totals] = {}
    for name, total in pairs:
        groups[name] = groups.get(name, Totals()).plus(total)
    return {name: total.as_dict() for name, total in groups.items()}


__all__ = ["DIRECT", "UsageTracker", "rows_of", "stats_of"]
