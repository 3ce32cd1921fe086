"""What LM calls used, for a scope or for the whole process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from dspy_live.core.usage import LMRecord
from dspy_live.observe.export import write_table
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.runtime.books.totals import Cells, Origin, Totals

DIRECT = "(direct)"
"""The name under which LM calls outside of any predictor or program are counted."""


class UsageTracker:
    """Counts tokens, cost, calls and cache hits.

    As it is, it shows what the whole process has used; :meth:`reset` starts it from zero without touching what
    others see. As a context manager it counts what is called inside, by this task, the tasks it starts, and DSPy's
    own threads, and goes on showing that afterwards::

        with UsageTracker() as usage:
            program(question="...")
        print(usage.get_stats()["total_cost"])

    Scopes nest, and run side by side without mixing. One tracker is one scope at a time.

    Args:
        account: what to read; the process's own by default.
    """

    def __init__(self, account: Account | None = None) -> None:
        self._account = account or process_account()
        self._own: Cells | None = None
        self._baseline = Cells()
        self._entered: AbstractContextManager[None] | None = None

    def __enter__(self) -> UsageTracker:
        if self._entered is not None:
            raise RuntimeError("this UsageTracker already counts a scope; make a second one for another")
        if self._own is None:
            self._own, self._baseline = Cells(), Cells()
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
        """Count one exchange of this scope; the account calls it."""
        if self._own is not None:
            self._own.add(record)

    def reset(self) -> None:
        """Count from zero from now on. The account, budgets, the ledger and other trackers keep what they have."""
        self._baseline = self._source().copy()

    def get_stats(self) -> dict[str, Any]:
        """Return what was used since the last :meth:`reset`, as a dict that JSON can hold.

        Besides the sums of :class:`~dspy_live.runtime.books.totals.Totals` it has ``unpriced_models`` (names),
        ``by_model``, ``by_predictor`` and ``by_module`` (the predictor's path or the module's: each module has all
        that its predictors used) and ``by_program`` (by name, each again with ``by_predictor``).
        """
        return stats_of(self._cells())

    def export(self, path: str | Path) -> Path:
        """Write the statistics to a file and return its path.

        ``.json`` holds :meth:`get_stats`; ``.jsonl`` and ``.csv`` have one row for each program, model, predictor and
        key. Another suffix is a :class:`~dspy_live.core.errors.ConfigurationError`. The file is replaced in one step.
        """
        return write_table(path, rows_of(self._cells()), whole=self.get_stats())

    def _source(self) -> Cells:
        return self._own if self._own is not None else self._account.live_cells()

    def _cells(self) -> Cells:
        return self._source().minus(self._baseline)


def stats_of(cells: Cells) -> dict[str, Any]:
    """Return the sums of ``cells`` as :meth:`UsageTracker.get_stats` gives them."""
    items = cells.items()
    stats = _sum(total for _, total in items).as_dict()
    stats["unpriced_models"] = sorted({origin.model for origin, total in items if total.unpriced_calls})
    stats["by_model"] = _grouped((origin.model, total) for origin, total in items)
    stats["by_predictor"] = _grouped((origin.predictor or DIRECT, total) for origin, total in items)
    stats["by_module"] = _grouped(
        (module or "self", total) for origin, total in items for module in set(origin.modules)
    )
    stats["by_program"] = {}
    for name in dict.fromkeys(origin.program for origin, _ in items):
        mine = [(origin, total) for origin, total in items if origin.program == name]
        stats["by_program"][name or DIRECT] = {
            **_sum(total for _, total in mine).as_dict(),
            "by_predictor": _grouped((origin.predictor or DIRECT, total) for origin, total in mine),
        }
    return stats


def rows_of(cells: Cells) -> list[dict[str, Any]]:
    """Return one flat row per program, model, predictor and key."""
    by_row: dict[tuple[str, str, str, str], Totals] = {}
    for o, total in cells.items():
        row = (o.program, o.model, o.predictor, o.key)
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


__all__ = ["DIRECT", "Origin", "UsageTracker", "rows_of", "stats_of"]
