"""Sums of LM records, kept apart by where they come from."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import msgspec

from dspy_live.core.usage import LMRecord

MAX_CELLS = 10_000
"""Bound on the kinds of records kept apart. A cell takes about 400 bytes, so that this is 4 MB at most."""


class Origin(NamedTuple):
    """Where a record comes from; see :class:`~dspy_live.core.usage.LMRecord`."""

    program: str
    model: str
    predictor: str
    modules: tuple[str, ...]
    key: str


class Totals(msgspec.Struct):
    """Sums over records. Tokens are counts, ``total_cost`` is US dollars and leaves out what has no price."""

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
        self.cached_tokens += usage.cached_tokens
        self.cache_write_tokens += usage.cache_write_tokens
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


class Cells:
    """Totals by :class:`Origin`. Thread-safe; past ``MAX_CELLS`` new origins share one cell, so that no sum is lost."""

    def __init__(self, cells: dict[Origin, Totals] | None = None) -> None:
        self._cells: dict[Origin, Totals] = cells if cells is not None else {}
        self._lock = threading.Lock()

    def add(self, record: LMRecord) -> None:
        """Add one record to its cell."""
        origin = (record.program, record.model, record.predictor, record.modules, record.key)
        with self._lock:
            cell = self._cells.get(origin)  # type: ignore[call-overload]  # a plain tuple equals its named form
            if cell is None:
                cell = self._new_cell(Origin(*origin))
            cell.add(record)

    def _new_cell(self, origin: Origin) -> Totals:
        if len(self._cells) >= MAX_CELLS:
            origin = Origin("(other)", origin.model, "(other)", (), "")
        return self._cells.setdefault(origin, Totals())

    def copy(self) -> Cells:
        """Return an independent copy, consistent as of one moment."""
        with self._lock:
            return Cells({origin: msgspec.structs.replace(cell) for origin, cell in self._cells.items()})

    def minus(self, baseline: Cells) -> Cells:
        """Return what was added since ``baseline``, an earlier copy of these cells."""
        with self._lock:
            changes = {o: cell.plus(baseline._cells.get(o, _NONE), -1) for o, cell in self._cells.items()}
        return Cells({origin: change for origin, change in changes.items() if change})

    def items(self) -> list[tuple[Origin, Totals]]:
        """Return the cells in the order of their first record."""
        with self._lock:
            return list(self._cells.items())
