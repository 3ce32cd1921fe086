"""Sums by hour and by day beside the rows, so that a question over a million runs reads some thousand rows.

A day's are kept for each program, key, model, predictor and error, an hour's for all together: there are few runs of
one kind in an hour.

The database keeps them itself, with triggers: whoever inserts a row, its sums change in the same transaction.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

Table = Literal["runs", "lm_calls"]

HOUR, DAY = 3600, 86_400
SIZES = {HOUR: "hour", DAY: "day"}


def names_of(table: Table, size: int) -> tuple[str, ...]:
    """Return the names by which the sums of an hour or a day are kept."""
    return SUMS[table].names if size == DAY else ()


class Sums(NamedTuple):
    """How the rows of one table are summed up: the column of their time, their names, and what is added up of each."""

    time: str
    names: tuple[str, ...]
    added: dict[str, str]


SUMS: dict[Table, Sums] = {
    "lm_calls": Sums(
        "ended",
        ("program", "key", "model", "predictor", "error"),
        {
            "api_calls": "CASE WHEN {0}cache = 'hit' THEN 0 ELSE 1 END",
            "cache_hits": "CASE WHEN {0}cache = 'hit' THEN 1 ELSE 0 END",
            "errors": "CASE WHEN {0}error IS NULL THEN 0 ELSE 1 END",
            "prompt_tokens": "{0}prompt_tokens",
            "completion_tokens": "{0}completion_tokens",
            "total_tokens": "{0}total_tokens",
            "cached_tokens": "{0}cached_tokens",
            "reasoning_tokens": "{0}reasoning_tokens",
            "estimated_tokens": "{0}estimated_tokens",
            "total_cost": "COALESCE({0}cost, 0.0)",
            "unpriced_calls": "{0}unpriced_calls",
        },
    ),
    "runs": Sums(
        "started",
        ("program", "key", "error"),
        {
            "runs": "1",
            "duration": "{0}duration",
            "ttft_runs": "CASE WHEN {0}ttft IS NULL THEN 0 ELSE 1 END",
            "ttft": "COALESCE({0}ttft, 0.0)",
            "failed_runs": "CASE WHEN {0}error IS NULL THEN 0 ELSE 1 END",
        },
    ),
}
REAL = {"total_cost", "duration", "ttft"}


def place_of(table: Table, size: int) -> str:
    """Return the name of the table with the sums of ``table``, by the hour or by the day."""
    return f"{table}_by_{SIZES[size]}"


def bucket(column: str, size: int, dialect: str) -> str:
    """Return the expression for the beginning of a time's hour or day."""
    if dialect == "sqlite":
        return f"CAST({column} AS INTEGER) / {size} * {size}"
    return f"CAST(FLOOR({column} / {size}) AS BIGINT) * {size}"


def creation(table: Table) -> list[str | dict[str, str]]:
    """Return the statements that make the sums of ``table``, let them be kept, and fill them from its rows."""
    statements: list[str | dict[str, str]] = [_table(table, size) for size in SIZES]
    sqlite = "; ".join(_add_one(table, size) for size in SIZES)
    postgres = "; ".join(adding(table, size, "postgres", "added") for size in SIZES)
    name = f"{table}_summed"
    statements.append(
        {
            "sqlite": f"CREATE TRIGGER {name} AFTER INSERT ON {table} BEGIN {sqlite}; END",
            "postgres": f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {postgres}; RETURN NULL; END $$",
        }
    )
    statements.append(
        {
            "postgres": f"CREATE TRIGGER {name} AFTER INSERT ON {table} REFERENCING NEW TABLE AS added "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        }
    )
    statements += [
        {dialect: adding(table, size, dialect, table) for dialect in ("sqlite", "postgres")} for size in SIZES
    ]
    return statements


def adding(table: Table, size: int, dialect: str, rows: str, where: str = "WHERE true") -> str:
    """Return the statement that adds the rows of ``rows`` to the sums.

    In the order of the key, so that replicas which add at once wait for each other and do not lock each other out.
    """
    sums = SUMS[table]
    start = bucket(sums.time, size, dialect)
    names = [_named(name, "") for name in names_of(table, size)]
    added = [f"SUM({what.format('')})" for what in sums.added.values()]
    count = ", ".join(str(n + 1) for n in range(1 + len(names)))
    return (
        f"INSERT INTO {place_of(table, size)} SELECT {', '.join([start, *names, *added])} "
        f"FROM {rows} {where} GROUP BY {count} ORDER BY {count} {_on_conflict(table, size)}"
    )


def _table(table: Table, size: int) -> str:
    sums = SUMS[table]
    columns = [
        "start {int} NOT NULL",
        *(f"{name} {{text}} NOT NULL" for name in names_of(table, size)),
        *(f"{name} {{{'real' if name in REAL else 'int'}}} NOT NULL" for name in sums.added),
        f"PRIMARY KEY ({', '.join(('start', *names_of(table, size)))})",
    ]
    return f"CREATE TABLE {place_of(table, size)} ({', '.join(columns)}) {{clustered}}"


def _add_one(table: Table, size: int) -> str:
    sums = SUMS[table]
    values = [
        bucket(f"NEW.{sums.time}", size, "sqlite"),
        *(_named(name, "NEW.") for name in names_of(table, size)),
        *(what.format("NEW.") for what in sums.added.values()),
    ]
    return f"INSERT INTO {place_of(table, size)} VALUES ({', '.join(values)}) {_on_conflict(table, size)}"


def _on_conflict(table: Table, size: int) -> str:
    sums, place = SUMS[table], place_of(table, size)
    changes = ", ".join(f"{name} = {place}.{name} + excluded.{name}" for name in sums.added)
    return f"ON CONFLICT ({', '.join(('start', *names_of(table, size)))}) DO UPDATE SET {changes}"


def _named(name: str, row: str) -> str:
    return f"COALESCE({row}{name}, '')" if name == "error" else f"{row}{name}"


class Part(NamedTuple):
    """A part of a time range: the hours or days of that size whose sums are taken, or with ``size`` 0 the rows."""

    size: int
    since: float | None
    until: float | None


def parts(since: float | None, until: float | None, sizes: tuple[int, ...]) -> list[Part]:
    """Return a time range as whole days, the whole hours before and after them, and what is left at its ends.

    ``sizes`` names the sums that may be used, the largest first. ``None`` is an end that is open.
    """
    if since is not None and until is not None and since >= until:
        return []
    if not sizes:
        return [Part(0, since, until)]
    size, *smaller = sizes
    first = None if since is None else math.ceil(since / size) * size
    last = None if until is None else math.floor(until / size) * size
    if first is not None and last is not None and first >= last:
        return parts(since, until, tuple(smaller))
    before = [] if first is None else parts(since, first, tuple(smaller))
    after = [] if last is None else parts(last, until, tuple(smaller))
    return [*before, Part(size, first, last), *after]


def pruning(table: Table, limit: float, dialect: str) -> list[str]:
    """Return the statements that bring the sums in line with rows of which those before ``limit`` are removed."""
    statements = []
    for size in SIZES:
        kept_from = math.ceil(limit / size) * size
        statements.append(f"DELETE FROM {place_of(table, size)} WHERE start < {kept_from}")
        statements.append(adding(table, size, dialect, table, f"WHERE {SUMS[table].time} < {kept_from}"))
    return statements
