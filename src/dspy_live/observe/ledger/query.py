"""Questions to the ledger, as SQL that both databases understand."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.observe.ledger.schema import Dialect

Group = Literal["day", "hour", "model", "program", "predictor", "key", "error"]
GROUPS: tuple[Group, ...] = ("day", "hour", "model", "program", "predictor", "key", "error")

SUMS = (
    "api_calls cache_hits errors prompt_tokens completion_tokens total_tokens cached_tokens reasoning_tokens "
    "estimated_tokens total_cost unpriced_calls"
).split()


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows count. Times are Unix seconds: from ``since`` on, before ``until``. Names are exact."""

    since: float | None = None
    until: float | None = None
    program: str | None = None
    model: str | None = None
    predictor: str | None = None
    key: str | None = None
    run: str | None = None

    def where(self, table: Literal["runs", "lm_calls"]) -> tuple[str, list[Any]]:
        """Return a ``WHERE`` clause, empty when everything counts, and its parameters."""
        time = "started" if table == "runs" else "ended"
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
            inner, parameters = Filter(model=self.model, predictor=self.predictor).where("lm_calls")
            clause = " AND ".join([*(t for t, _ in terms), f"id IN (SELECT run FROM lm_calls {inner})"])
            return f"WHERE {clause}", [*(v for _, v in terms), *parameters]
        if not terms:
            return "", []
        return "WHERE " + " AND ".join(t for t, _ in terms), [v for _, v in terms]


def summary(by: Group | None, table: Literal["runs", "lm_calls"], chosen: Filter, dialect: Dialect) -> Any:
    """Return the statement and parameters that sum up one table, one row per group.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a group that there is not.
    """
    if by is not None and by not in GROUPS:
        raise ConfigurationError(f"usage can be shown by {', '.join(GROUPS)}; got {by!r}")
    clause, parameters = chosen.where(table)
    group = "''" if by is None else _group(by, table, dialect)
    if table == "runs":
        columns = "COUNT(*), SUM(duration), COUNT(ttft), SUM(ttft), SUM(CASE WHEN error IS NULL THEN 0 ELSE 1 END)"
    else:
        columns = (
            "SUM(CASE WHEN cache = 'hit' THEN 0 ELSE 1 END), SUM(CASE WHEN cache = 'hit' THEN 1 ELSE 0 END), "
            "SUM(CASE WHEN error IS NULL THEN 0 ELSE 1 END), SUM(prompt_tokens), SUM(completion_tokens), "
            "SUM(total_tokens), SUM(cached_tokens), SUM(reasoning_tokens), SUM(estimated_tokens), "
            "COALESCE(SUM(cost), 0.0), SUM(unpriced_calls)"
        )
    return f"SELECT {group}, {columns} FROM {table} {clause} GROUP BY 1 ORDER BY 1", parameters


def has_group(by: Group | None, table: Literal["runs", "lm_calls"]) -> bool:
    """True when a table's rows can be told apart by ``by``: a run may have used several models and predictors."""
    return table == "lm_calls" or by not in ("model", "predictor")


def _group(by: Group, table: Literal["runs", "lm_calls"], dialect: Dialect) -> str:
    if by not in ("day", "hour"):
        return f"COALESCE({by}, '')"
    time = "started" if table == "runs" else "ended"
    if dialect == "sqlite":
        shape = "%Y-%m-%d" if by == "day" else "%Y-%m-%d %H:00"
        return f"strftime('{shape}', {time}, 'unixepoch')"
    shape = "YYYY-MM-DD" if by == "day" else 'YYYY-MM-DD HH24":00"'
    return f"to_char(to_timestamp({time}) AT TIME ZONE 'UTC', '{shape}')"
