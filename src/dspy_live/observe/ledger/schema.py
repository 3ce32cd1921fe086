"""The ledger's tables, and how an older file becomes a newer one.

A step is never changed once it was released: a new one is added. Each runs in one transaction with the entry of its
number, so that a file is at one version or at the next, never between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dspy_live.observe.ledger.sums import addition, creation, gating
from dspy_live.observe.ledger.uses import MIGRATION

Dialect = Literal["sqlite", "postgres"]

RUN_COLUMNS = (
    "id program key started duration ttft error lm_calls cache_hits prompt_tokens completion_tokens total_tokens "
    "cached_tokens reasoning_tokens estimated_tokens cost unpriced_calls inputs outputs uses"
).split()
CALL_COLUMNS = (
    "run program key model predictor lm_call ended latency ttft error cache prompt_tokens completion_tokens "
    "total_tokens cached_tokens reasoning_tokens estimated_tokens cost unpriced_calls"
).split()
"""In the order of the rows that the writer hands over. Times are Unix seconds (UTC), durations seconds."""

_TEXT = {"id", "program", "key", "error", "inputs", "outputs", "uses", "run", "model", "predictor", "cache"}
_REAL = {"started", "duration", "ttft", "ended", "latency", "cost"}


def type_of(column: str) -> Literal["text", "real", "int"]:
    """Return the type of a column."""
    return "text" if column in _TEXT else "real" if column in _REAL else "int"


_TYPES = {
    "sqlite": {
        "text": "TEXT",
        "real": "REAL",
        "int": "INTEGER",
        "serial": "INTEGER PRIMARY KEY",
        "clustered": "WITHOUT ROWID",
    },
    "postgres": {
        "text": "TEXT",
        "real": "DOUBLE PRECISION",
        "int": "BIGINT",
        "serial": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "clustered": "",
    },
}

VERSION_TABLE = "CREATE TABLE IF NOT EXISTS ledger_version (version {int} PRIMARY KEY, applied {real} NOT NULL)"

_RUNS = """CREATE TABLE runs (
    id {text} PRIMARY KEY, program {text} NOT NULL, key {text} NOT NULL,
    started {real} NOT NULL, duration {real} NOT NULL, ttft {real}, error {text},
    lm_calls {int} NOT NULL, cache_hits {int} NOT NULL,
    prompt_tokens {int} NOT NULL, completion_tokens {int} NOT NULL, total_tokens {int} NOT NULL,
    cached_tokens {int} NOT NULL, reasoning_tokens {int} NOT NULL, estimated_tokens {int} NOT NULL,
    cost {real} NOT NULL, unpriced_calls {int} NOT NULL)"""

_LM_CALLS = """CREATE TABLE lm_calls (
    id {serial}, run {text} NOT NULL, program {text} NOT NULL, key {text} NOT NULL,
    model {text} NOT NULL, predictor {text} NOT NULL, lm_call {int} NOT NULL,
    ended {real} NOT NULL, latency {real} NOT NULL, ttft {real}, error {text}, cache {text} NOT NULL,
    prompt_tokens {int} NOT NULL, completion_tokens {int} NOT NULL, total_tokens {int} NOT NULL,
    cached_tokens {int} NOT NULL, reasoning_tokens {int} NOT NULL, estimated_tokens {int} NOT NULL,
    cost {real}, unpriced_calls {int} NOT NULL)"""

Statement = str | Mapping[str, str]
"""The same in both dialects but for the names of types; or one for each dialect that needs it."""

STEPS: tuple[tuple[Statement, ...], ...] = (
    (
        _RUNS,
        _LM_CALLS,
        "CREATE INDEX runs_started ON runs (started)",
        "CREATE INDEX lm_calls_ended ON lm_calls (ended)",
        "CREATE INDEX lm_calls_run ON lm_calls (run)",
    ),
    (
        "ALTER TABLE runs ADD COLUMN inputs {text}",
        "ALTER TABLE runs ADD COLUMN outputs {text}",
    ),
    (*creation("runs"), *creation("lm_calls")),
    MIGRATION,
    (*addition("runs"), *addition("lm_calls")),
    (
        {
            "postgres": "CREATE TABLE ledger_writers "
            "(writer TEXT PRIMARY KEY, batch TEXT NOT NULL, written DOUBLE PRECISION)"
        },
    ),
    (*gating("runs"), *gating("lm_calls")),
)


def in_dialect(statement: Statement, dialect: Dialect) -> str:
    """Return a statement of this module as the dialect has it, empty where it needs none."""
    if isinstance(statement, str):
        return statement.format(**_TYPES[dialect])
    return statement.get(dialect, "")


def insert(table: str, columns: list[str], rows: int) -> str:
    """Return SQLite's statement that inserts so many rows, with a mark for each value; their writer sums them up."""
    marks = "(" + ", ".join("?" * len(columns)) + ", 1)"
    return f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}, summed) VALUES {', '.join([marks] * rows)}"


def insert_json(table: str, columns: list[str]) -> str:
    """Return PostgreSQL's statement that inserts many rows, given as one JSON array of arrays."""
    types = {"text": "TEXT", "real": "DOUBLE PRECISION", "int": "BIGINT"}
    values = ", ".join(f"(value->>{i})::{types[type_of(name)]}" for i, name in enumerate(columns))
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) "
        f"SELECT {values} FROM json_array_elements(%s::json) ON CONFLICT DO NOTHING"
    )
