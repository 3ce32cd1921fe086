"""Sums by hour and by day beside the rows, so that a question over a million runs reads some thousand rows.

A day's are kept for each program, key, model, predictor and error, an hour's for all together, and some for what is
asked often: the models and predictors by the hour, the runs that used one.

Whoever inserts a row, its sums change in the same transaction. PostgreSQL keeps them with a trigger for each statement.
SQLite's triggers are for each row and take longer than the row itself: there the writer of many rows sums them up once
and marks them as ``summed``; a trigger is left for rows without that mark, which a process of an older version inserts.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

Table = Literal["runs", "lm_calls"]
Statement = str | dict[str, str]

HOUR, DAY = 3600, 86_400


class Kept(NamedTuple):
    """Sums of hours or days, kept for each combination of some names, in a table whose name ends in ``suffix``."""

    size: int
    names: tuple[str, ...]
    suffix: str


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

FIRST: dict[Table, tuple[Kept, ...]] = {
    table: (Kept(HOUR, (), "hour"), Kept(DAY, sums.names, "day")) for table, sums in SUMS.items()
}
LATER: dict[Table, tuple[Kept, ...]] = {
    "lm_calls": (Kept(HOUR, ("model", "predictor"), "hour_of_use"),),
    "runs": (
        Kept(HOUR, ("uses",), "hour_of_use"),
        Kept(DAY, ("program", "error", "uses"), "day_of_use"),
        Kept(DAY, ("key", "uses"), "day_of_key_and_use"),
    ),
}
"""Those that a later version has added: of the models and predictors that a run has used, in one text (``uses``)."""
KEPT: dict[Table, tuple[Kept, ...]] = {table: (*FIRST[table], *LATER[table]) for table in SUMS}


def place_of(table: Table, kept: Kept) -> str:
    """Return the name of the table with these sums of ``table``."""
    return f"{table}_by_{kept.suffix}"


def best_for(table: Table, size: int, names: set[str]) -> Kept | None:
    """Return the smallest sums of that size that tell these names apart, ``None`` where there are none."""
    fitting = [kept for kept in KEPT[table] if kept.size == size and names <= set(kept.names)]
    return min(fitting, key=lambda kept: len(kept.names), default=None)


def bucket(column: str, size: int, dialect: str) -> str:
    """Return the expression for the beginning of a time's hour or day."""
    if dialect == "sqlite":
        return f"CAST({column} AS INTEGER) / {size} * {size}"
    return f"CAST(FLOOR({column} / {size}) AS BIGINT) * {size}"


def creation(table: Table) -> list[Statement]:
    """Return the statements that make the first sums of ``table``, let them be kept, and fill them from its rows."""
    kept = FIRST[table]
    statements = [_table(table, one) for one in kept]
    name = f"{table}_summed"
    statements.append(
        {"sqlite": _sqlite_trigger(table, kept), "postgres": f"CREATE FUNCTION {_postgres_function(table, kept)}"}
    )
    statements.append(
        {
            "postgres": f"CREATE TRIGGER {name} AFTER INSERT ON {table} REFERENCING NEW TABLE AS added "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        }
    )
    return [*statements, *_filled(table, kept)]


def addition(table: Table) -> list[Statement]:
    """Return the statements that make the later sums of ``table``, let all be kept, and fill the later ones."""
    statements = [_table(table, kept) for kept in LATER[table]]
    for kept in LATER[table]:
        if "uses" in kept.names:
            key = _key(kept, "postgres")
            statements.append(
                {"postgres": f"CREATE UNIQUE INDEX {place_of(table, kept)}_key ON {place_of(table, kept)} ({key})"}
            )
    statements.append({"sqlite": f"DROP TRIGGER {table}_summed"})
    statements.append(
        {
            "sqlite": _sqlite_trigger(table, KEPT[table]),
            "postgres": f"CREATE OR REPLACE FUNCTION {_postgres_function(table, KEPT[table])}",
        }
    )
    return [*statements, *_filled(table, LATER[table])]


def gating(table: Table) -> list[Statement]:
    """Return SQLite's statements that let its trigger leave rows alone which are marked as summed up already."""
    unmarked = _sqlite_trigger(table, KEPT[table]).replace(" BEGIN ", " WHEN NEW.summed IS NULL BEGIN ", 1)
    statements = (f"ALTER TABLE {table} ADD COLUMN summed INTEGER", f"DROP TRIGGER {table}_summed", unmarked)
    return [{"sqlite": statement} for statement in statements]


def summing(table: Table) -> Summing:
    """Return SQLite's statements that sum up the newest rows of ``table``."""
    sums, place = SUMS[table], f"temp.new_{table}"
    names = tuple(dict.fromkeys(name for kept in KEPT[table] for name in kept.names))
    columns = ", ".join(("start", *names, *sums.added))
    told = (bucket(sums.time, HOUR, "sqlite"), *(_named(name, "") for name in names))
    once = ", ".join((*told, *(f"SUM({what.format('')})" for what in sums.added.values())))
    return Summing(
        f"CREATE TEMP TABLE new_{table} ({columns})",
        f"SELECT COALESCE(MAX(rowid), 0) FROM {table}",
        f"INSERT INTO {place} SELECT {once} FROM {table} WHERE rowid > ? GROUP BY {_numbers(len(told))}",
        (*(_added_up(table, kept, place) for kept in KEPT[table]), f"DELETE FROM {place}"),
    )


class Summing(NamedTuple):
    """SQLite's statements for the rows of one batch, all of one transaction.

    Args:
        table: makes a table of the connection's own, for the sums of a batch by hour and by all names.
        newest: asks for the row before the batch.
        gather: fills that table with the sums of the rows after it.
        add: add these to all sums that are kept, and empty the table.
    """

    table: str
    newest: str
    gather: str
    add: tuple[str, ...]


def _added_up(table: Table, kept: Kept, place: str) -> str:
    told = (f"start / {kept.size} * {kept.size}", *kept.names)
    added = (f"SUM({name})" for name in SUMS[table].added)
    return (
        f"INSERT INTO {place_of(table, kept)} SELECT {', '.join((*told, *added))} FROM {place} WHERE true "
        f"GROUP BY {_numbers(len(told))} {_on_conflict(table, kept, 'sqlite')}"
    )


def _numbers(count: int) -> str:
    """The first so many columns of a query."""
    return ", ".join(str(n + 1) for n in range(count))


def _filled(table: Table, kept: tuple[Kept, ...]) -> list[Statement]:
    return [{dialect: adding(table, one, dialect, table) for dialect in ("sqlite", "postgres")} for one in kept]


def _sqlite_trigger(table: Table, kept: tuple[Kept, ...]) -> str:
    added = "; ".join(_add_one(table, one) for one in kept)
    return f"CREATE TRIGGER {table}_summed AFTER INSERT ON {table} BEGIN {added}; END"


def _postgres_function(table: Table, kept: tuple[Kept, ...]) -> str:
    added = "; ".join(adding(table, one, "postgres", "added") for one in kept)
    return f"{table}_summed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {added}; RETURN NULL; END $$"


def adding(table: Table, kept: Kept, dialect: str, rows: str, where: str = "WHERE true") -> str:
    """Return the statement that adds the rows of ``rows`` to the sums.

    In the order of the key, so that replicas which add at once wait for each other and do not lock each other out.
    """
    sums = SUMS[table]
    start = bucket(sums.time, kept.size, dialect)
    names = [_named(name, "") for name in kept.names]
    added = [f"SUM({what.format('')})" for what in sums.added.values()]
    count = _numbers(1 + len(names))
    return (
        f"INSERT INTO {place_of(table, kept)} SELECT {', '.join([start, *names, *added])} "
        f"FROM {rows} {where} GROUP BY {count} ORDER BY {count} {_on_conflict(table, kept, dialect)}"
    )


def _table(table: Table, kept: Kept) -> Statement:
    columns = [
        "start {int} NOT NULL",
        *(f"{name} {{text}} NOT NULL" for name in kept.names),
        *(f"{name} {{{'real' if name in REAL else 'int'}}} NOT NULL" for name in SUMS[table].added),
    ]
    key = f"PRIMARY KEY ({_key(kept, 'sqlite')})"
    keyed = f"CREATE TABLE {place_of(table, kept)} ({', '.join([*columns, key])})"
    if "uses" not in kept.names:
        return f"{keyed} {{clustered}}"
    types = {"sqlite": {"int": "INTEGER", "real": "REAL"}, "postgres": {"int": "BIGINT", "real": "DOUBLE PRECISION"}}
    plain = f"CREATE TABLE {place_of(table, kept)} ({', '.join(columns)})"
    return {
        "sqlite": f"{keyed.format(text='TEXT', **types['sqlite'])} WITHOUT ROWID",
        "postgres": plain.format(text="TEXT", **types["postgres"]),
    }


def _key(kept: Kept, dialect: str) -> str:
    """The columns that tell the rows of kept sums apart. An index of PostgreSQL's takes no long text."""
    names = ("md5(uses)" if name == "uses" and dialect == "postgres" else name for name in kept.names)
    return ", ".join(("start", *names))


def _add_one(table: Table, kept: Kept) -> str:
    sums = SUMS[table]
    values = [
        bucket(f"NEW.{sums.time}", kept.size, "sqlite"),
        *(_named(name, "NEW.") for name in kept.names),
        *(what.format("NEW.") for what in sums.added.values()),
    ]
    return f"INSERT INTO {place_of(table, kept)} VALUES ({', '.join(values)}) {_on_conflict(table, kept, 'sqlite')}"


def _on_conflict(table: Table, kept: Kept, dialect: str) -> str:
    place = place_of(table, kept)
    changes = ", ".join(f"{name} = {place}.{name} + excluded.{name}" for name in SUMS[table].added)
    return f"ON CONFLICT ({_key(kept, dialect)}) DO UPDATE SET {changes}"


def _named(name: str, row: str) -> str:
    return f"COALESCE({row}{name}, '')" if name in ("error", "uses") else f"{row}{name}"


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
    # In PostgreSQL a row that another process commits between the two statements would count twice.
    statements = [f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"] if dialect == "postgres" else []
    for kept in KEPT[table]:
        kept_from = math.ceil(limit / kept.size) * kept.size
        statements.append(f"DELETE FROM {place_of(table, kept)} WHERE start < {kept_from}")
        statements.append(adding(table, kept, dialect, table, f"WHERE {SUMS[table].time} < {kept_from}"))
    return statements
