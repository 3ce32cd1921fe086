"""Questions to the ledger, as SQL that both databases understand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.observe.ledger.schema import Dialect
from dspy_live.observe.ledger.sums import DAY, HOUR, Kept, Table, best_for, bucket, parts, place_of
from dspy_live.observe.ledger.sums import SUMS as SUMS_OF
from dspy_live.observe.ledger.uses import piece_of

Group = Literal["day", "hour", "model", "program", "predictor", "key", "error"]
GROUPS: tuple[Group, ...] = ("day", "hour", "model", "program", "predictor", "key", "error")

SUMS = tuple(SUMS_OF["lm_calls"].added)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows count. Times are Unix seconds: from ``since`` on, before ``until``. Names are exact."""

    since: float | None = None
    until: float | None = None
    program: str | None = None
    model: str | None = None
    predictor: str | None = None
    key: str | None = None
    run: str | None = None

    def where(self, table: Table, dialect: Dialect, time: str = "") -> tuple[str, list[Any]]:
        """Return a ``WHERE`` clause, empty when everything counts, and its parameters; ``time`` is another column's."""
        time = time or ("started" if table == "runs" else "ended")
        names = {"program": self.program, "key": self.key}
        if table == "runs":
            names["id"] = self.run
        else:
            names.update(run=self.run, model=self.model, predictor=self.predictor)
        terms: list[tuple[str, Any]] = [(f"{name} = ?", value) for name, value in names.items() if value is not None]
        if self.since is not None:
            terms.append((f"{time} >= ?", self.since))
        if self.until is not None:
            terms.append((f"{time} < ?", self.until))
        if table == "runs" and (self.model is not None or self.predictor is not None):
            finds = "instr" if dialect == "sqlite" else "strpos"
            terms.append((f"{finds}(uses, ?) > 0", piece_of(self.model, self.predictor)))
        if not terms:
            return "", []
        return "WHERE " + " AND ".join(t for t, _ in terms), [v for _, v in terms]


def summaries(by: Group | None, table: Table, chosen: Filter, dialect: Dialect) -> Iterator[tuple[str, list[Any]]]:
    """Yield the statements, with their parameters, whose rows together sum up one table: a group, then its sums.

    A group comes once in each at most. That of a time is its first second. Whole hours and days are taken from the sums
    that the database keeps, unless the filter asks for what they do not tell.
    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a group that there is not.
    """
    if by is not None and by not in GROUPS:
        raise ConfigurationError(f"usage can be shown by {', '.join(GROUPS)}; got {by!r}")
    sums = SUMS_OF[table]
    tables = _kept(by, table, chosen)
    for part in parts(chosen.since, chosen.until, tuple(tables)):
        ranged = msgspec.structs.replace(chosen, since=part.since, until=part.until)
        time = "start" if part.size else sums.time
        clause, parameters = ranged.where(table, dialect, time)
        rows = place_of(table, tables[part.size]) if part.size else table
        group = "''" if by is None else _group(by, time, dialect)
        added = ", ".join(f"SUM({name if part.size else what.format('')})" for name, what in sums.added.items())
        yield f"SELECT {group}, COUNT(*), {added} FROM {rows} {clause} GROUP BY 1", parameters


def _kept(by: Group | None, table: Table, chosen: Filter) -> dict[int, Kept]:
    """Return the sums that tell what is asked, by their size, the largest first."""
    if chosen.run is not None:
        return {}
    needed = {name for name in ("program", "key", "model", "predictor") if getattr(chosen, name) is not None}
    if by is not None and by not in ("day", "hour"):
        needed.add(by)
    if table == "runs" and needed & {"model", "predictor"}:
        needed = needed - {"model", "predictor"} | {"uses"}
    found = {size: best_for(table, size, needed) for size in ((HOUR,) if by == "hour" else (DAY, HOUR))}
    return {size: kept for size, kept in found.items() if kept is not None}


def name_of(by: Group | None, group: Any) -> str:
    """Return the name of a group: a time's first second as its day or hour (UTC), any other as it is."""
    if by not in ("day", "hour"):
        return str(group)
    return datetime.fromtimestamp(group, UTC).strftime("%Y-%m-%d" if by == "day" else "%Y-%m-%d %H:00")


def has_group(by: Group | None, table: Table) -> bool:
    """True when a table's rows can be told apart by ``by``: a run may have used several models and predictors."""
    return table == "lm_calls" or by not in ("model", "predictor")


def _group(by: Group, time: str, dialect: Dialect) -> str:
    if by in ("day", "hour"):
        return bucket(time, DAY if by == "day" else HOUR, dialect)
    return f"COALESCE({by}, '')"
