"""Views of `dspy-live usage` over a ledger of a million runs: seconds for each, and for opening an old file.

Seconds that passed, and seconds of CPU beside them, which a busy machine changes little.

    python bench/ledger.py [--runs 1000000] [--days 90] [--file FOLDER/ledger.db]

The file is written as an older version has it, so that the first opening migrates it; a file that is there is used.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dspy_live.cli.commands.usage import usage
from dspy_live.observe.ledger import open_ledger
from dspy_live.observe.ledger.schema import CALL_COLUMNS, RUN_COLUMNS, STEPS, VERSION_TABLE, in_dialect

PROGRAMS, KEYS, MODELS, PREDICTORS = 8, 20, 6, 3
VERSION = 2  # the last one without sums


def main() -> None:
    """Write the file unless it is there, open it, and time each view."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "ledger.db"
        if not path.exists():
            print(f"{timed(lambda: write(path, options.runs, options.days))}  written, {options.runs} runs")
        print(f"{timed(lambda: open_ledger(path).close())}  opened, and migrated where it was old")
        print(f"{timed(lambda: open_ledger(path).close())}  opened again")
        print(f"{path.stat().st_size / 1e6:8.0f} MB")
        for view in views():
            text = " ".join(f"--{k} {v}" if v is not True else f"--{k}" for k, v in view.items())
            print(f"{timed(lambda view=view: show(path, view))}  usage {text}", flush=True)


def views() -> Iterator[dict[str, Any]]:
    """Every kind of table, with every kind of filter."""
    for by in ("day", "hour", "model", "program", "predictor", "key", "error"):
        yield {"by": by}
    for name, value in (("program", "program1"), ("key", "key1"), ("model", "model1"), ("predictor", "predictor1")):
        yield {"by": "day", name: value}
        yield {"by": "hour", name: value}
        yield {name: value, "runs": 20}
        yield {name: value, "calls": 20}
    yield {"since": "7d", "by": "model"}
    yield {"since": "1000h", "until": "13h", "by": "hour"}
    yield {"since": "24h", "by": "key", "model": "model1"}
    yield {"runs": 20}
    yield {"calls": 20}
    yield {"run": "run77"}
    yield {"key": "nobody"}
    yield {"model": "nothing", "runs": 20}


def show(path: Path, view: dict[str, Any]) -> None:
    """Run the command in this process, without its text."""
    with contextlib.redirect_stdout(io.StringIO()):
        usage(ledger=str(path), **view)


def timed(work: Callable[[], Any]) -> str:
    """Return the seconds of one call, those of CPU second."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return f"{time.perf_counter() - start:8.2f} s {time.process_time() - cpu:8.2f} s CPU"


def write(path: Path, runs: int, days: int) -> None:
    """Write a ledger of the old version, its runs spread over the last ``days`` days."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
    for statement in (VERSION_TABLE, *(s for step in STEPS[:VERSION] for s in step)):
        connection.execute(in_dialect(statement, "sqlite"))
    connection.executemany("INSERT INTO ledger_version VALUES (?, 0)", [(n + 1,) for n in range(VERSION)])
    chance = random.Random(7)
    now = time.time()
    for first in range(0, runs, 20_000):
        run_rows, call_rows = [], []
        for number in range(first, min(runs, first + 20_000)):
            started = now - days * 86400 * (1 - number / runs)
            run, calls = a_run(number, started, chance)
            run_rows.append(run)
            call_rows += calls
        connection.execute("BEGIN")
        insert(connection, "runs", RUN_COLUMNS, run_rows)
        insert(connection, "lm_calls", CALL_COLUMNS, call_rows)
        connection.execute("COMMIT")
    connection.close()


def insert(connection: sqlite3.Connection, table: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    """Insert rows."""
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def a_run(number: int, started: float, chance: random.Random) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Return the row of a run, and those of its one to three LM calls."""
    run, program = f"run{number}", f"program{chance.randrange(PROGRAMS)}"
    key, model = f"key{chance.randrange(KEYS)}", f"model{chance.randrange(MODELS)}"
    error = "LMError" if chance.random() < 0.02 else None
    calls = [
        (run, program, key, model, f"predictor{n}", n, started + n, 0.9, 0.2, error, "miss",
         100, 50, 150, 0, 0, 0, 0.001, 0)
        for n in range(chance.randint(1, PREDICTORS))
    ]  # fmt: skip
    n = len(calls)
    row = (
        run,
        program,
        key,
        started,
        n * 1.0,
        0.3,
        error,
        n,
        0,
        100 * n,
        50 * n,
        150 * n,
        0,
        0,
        0,
        0.001 * n,
        0,
        None,
        None,
    )
    return row, calls


if __name__ == "__main__":
    main()
