"""Sums of LM records by program, model, predictor, modules and API key."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import msgspec

from dspy_live.core.usage import LMRecord

MAX_ROWS = 10_000
"""Bound on the rows of a table. A row takes about 400 bytes, so that this is 4 MB at most."""


class TotalsKey(NamedTuple):
    """The fields of an :class:`~dspy_live.core.usage.LMRecord` that tell the rows of a table apart."""

    program: str
    model: str
    predictor: str
    modules: tuple[str, ...]
    key: str


class Totals(msgspec.Struct):
    """Sums over records. Tokens are counts, ``total_cost`` is US dollars, of the calls that have a price."""

    total_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    total_cost: float = 0.0
    api_calls: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    errors: int = 0
    unpriced_calls: int = 0
    estimated_calls: int = 0
    estimated_tokens: int = 0

    def add(self, record: LMRecord) -> None:
        """Add one record."""
        if record.cache == "hit":
            self.cache_hits += 1
            return
        if record.cache == "miss":
            self.cache_misses += 1
        self.api_calls += 1
        if record.error is not None:
            self.errors += 1
        usage = record.usage
        if not usage:
            return
        self.total_tokens += usage.total_tokens
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        if usage.cached_tokens or usage.cache_write_tokens:
            self.cached_tokens += usage.cached_tokens
            self.cache_write_tokens += usage.cache_write_tokens
        if usage.reasoning_tokens:
            self.reasoning_tokens += usage.reasoning_tokens
        if usage.estimated:
            self.estimated_calls += 1
            self.estimated_tokens += usage.total_tokens
        if record.cost is None:
            self.unpriced_calls += 1
        else:
            self.total_cost += record.cost

    def plus(self, other: Totals, sign: int = 1) -> Totals:
        """Return the sum of both, or with ``sign=-1`` the difference."""
        return Totals(*(getattr(self, f) + sign * getattr(other, f) for f in self.__struct_fields__))

    def as_dict(self) -> dict[str, Any]:
        """Return the sums by name."""
        return msgspec.structs.asdict(self)

    def __bool__(self) -> bool:
        return bool(self.api_calls or self.cache_hits)


_NONE = Totals()


class TotalsTable:
    """Totals by :class:`TotalsKey`. Thread-safe; past ``MAX_ROWS`` new keys share one row, so that no sum is lost."""

    def __init__(self, rows: dict[TotalsKey, Totals] | None = None) -> None:
        self._rows: dict[TotalsKey, Totals] = rows if rows is not None else {}
        self._lock = threading.Lock()

    def add(self, record: LMRecord) -> None:
        """Add one record to its row."""
        key = (record.program, record.model, record.predictor, record.modules, record.key)
        with self._lock:
            row = self._rows.get(key)  # type: ignore[call-overload]  # a plain tuple equals its named form
            if row is None:
                row = self._new_row(TotalsKey(*key))
            row.add(record)

    def _new_row(self, key: TotalsKey) -> Totals:
        if len(self._rows) >= MAX_ROWS:
            key = TotalsKey("(other)", key.model, "(other)", (), "")
        return self._rows.setdefault(key, Totals())

    def copy(self) -> TotalsTable:
        """Return an independent copy, consistent as of one moment."""
        with self._lock:
            return TotalsTable({key: msgspec.structs.replace(row) for key, row in self._rows.items()})

    def minus(self, baseline: TotalsTable) -> TotalsTable:
        """Return the sums since ``baseline``, an earlier copy of this table."""
        with self._lock:
            changes = {key: row.plus(baseline._rows.get(key, _NONE), -1) for key, row in self._rows.items()}
        return TotalsTable({key: change for key, change in changes.items() if change})

    def items(self) -> list[tuple[TotalsKey, Totals]]:
        """Return keys and rows in the order of each key's first record."""
        with self._lock:
            return list(self._rows.items())
