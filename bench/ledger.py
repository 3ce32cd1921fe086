"""Views of `dspy-live usage` over a ledger of a million runs: seconds for each, and for opening an old ledger.

Seconds that passed, and seconds of CPU beside them, which a busy machine changes less: of this process, and of
PostgreSQL's for a connection that has ended.

    python bench/ledger.py [--runs 1000000] [--days 90] [--only sqlite|postgres] [--file FOLDER/ledger.db]

The ledger is written as an older version has it, so that the first opening migrates it. A file that is there is used.
PostgreSQL is started for this.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dspy_live.cli.commands.usage import usage
from dspy_live.observe.ledger import GROUPS, open_ledger
from dspy_live.observe.ledger.schema import CALL_COLUMNS, RUN_COLUMNS, STEPS, VERSION_TABLE, in_dialect

PROGRAMS, KEYS, MODELS, PREDICTORS = 8, 20, 6, 3
VERSION = 2  # the last one without sums
server: list[int] = []
"""The process of the PostgreSQL server that runs."""
OLD_RUN_COLUMNS = [name for name in RUN_COLUMNS if name != "uses"]


def main() -> None:
    """Write a ledger of each kind unless it is there, open it, and time each view."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--only", choices=["sqlite", "postgres"])
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    if options.only != "postgres":
        with tempfile.TemporaryDirectory() as folder:
            path = options.file or Path(folder) / "ledger.db"
            if not path.exists():
                print(f"{timed(lambda: write_sqlite(path, options))[0]}  written, {options.runs} runs, SQLite")
            measure(str(path))
            print(f"{path.stat().st_size / 1e6:8.0f} MB", flush=True)
    if options.only != "sqlite":
        with a_postgres() as address:
            print(f"{timed(lambda: write_postgres(address, options))[0]}  written, {options.runs} runs, PostgreSQL")
            measure(address)


def settle(address: str) -> None:
    """Do now what PostgreSQL does by itself within minutes, so that it does not do it while views are timed."""
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        for statement in ("ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()", "VACUUM ANALYZE"):
            connection.execute(statement)


def measure(place: str) -> None:
    """Open a ledger, and time each view."""
    print(f"{timed(lambda: open_ledger(place).close())[0]}  opened, and migrated where it was old", flush=True)
    if server:
        settle(place)
    print(f"{timed(lambda: open_ledger(place).close())[0]}  opened again", flush=True)
    slowest = 0.0
    for view in views():
        text = " ".join(f"--{k} {v}" if v is not True else f"--{k}" for k, v in view.items())
        took, cpu = timed(lambda view=view: show(place, view))  # type: ignore[misc]
        slowest = max(slowest, cpu)
        print(f"{took}  usage {text}", flush=True)
    print(f"{slowest:8.2f} s CPU, the slowest view", flush=True)


def views() -> Iterator[dict[str, Any]]:
    """Every kind of table, with every kind of filter."""
    names = {"program": "program1", "key": "key1", "model": "model1", "predictor": "predictor1"}
    for by in GROUPS:
        yield {"by": by}
    for by, name in itertools.product(GROUPS, names):
        if by != name:
            yield {"by": by, name: names[name]}
    for one, other in itertools.combinations(names, 2):
        yield {"by": "hour", one: names[one], other: names[other]}
    for name, value in names.items():
        yield {name: value, "runs": 20}
        yield {name: value, "calls": 20}
        yield {name: "nobody"}
        yield {name: "nobody", "runs": 20}
    yield {"since": "7d", "by": "model"}
    yield {"since": "1000h", "until": "13h", "by": "hour"}
    yield {"since": "24h", "by": "key", "model": "model1"}
    yield {"since": "1000h", "until": "13h", "by": "hour", "predictor": "predictor1"}
    yield {"runs": 20}
    yield {"calls": 20}
    yield {"run": "run77"}


def show(place: str, view: dict[str, Any]) -> None:
    """Run the command in this process, without its text."""
    with contextlib.redirect_stdout(io.StringIO()):
        usage(ledger=place, **view)


def timed(work: Callable[[], Any]) -> tuple[str, float]:
    """Return the seconds of one call and those of CPU, as text; and the latter."""
    start, cpu, served = time.perf_counter(), time.process_time(), _server_cpu()
    work()
    passed, cpu = time.perf_counter() - start, time.process_time() - cpu
    if server:
        time.sleep(0.2)  # until the server has seen the end of its process
    cpu += _server_cpu() - served
    return f"{passed:8.2f} s {cpu:8.2f} s CPU", cpu


def _server_cpu() -> float:
    """Return the CPU seconds of the server's processes that have ended."""
    if not server:
        return 0.0
    fields = Path(f"/proc/{server[0]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def write_sqlite(path: Path, options: argparse.Namespace) -> None:
    """Write a file of the old version, its runs spread over the last days."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
    for statement in old_tables():
        connection.execute(in_dialect(statement, "sqlite"))
    connection.executemany("INSERT INTO ledger_version VALUES (?, 0)", [(n + 1,) for n in range(VERSION)])
    for run_rows, call_rows in batches(options):
        connection.execute("BEGIN")
        insert(connection, "runs", OLD_RUN_COLUMNS, run_rows)
        insert(connection, "lm_calls", CALL_COLUMNS, call_rows)
        connection.execute("COMMIT")
    connection.close()


def write_postgres(address: str, options: argparse.Namespace) -> None:
    """Write a database of the old version."""
    import psycopg

    with psycopg.connect(address) as connection:
        for statement in old_tables():
            connection.execute(in_dialect(statement, "postgres").encode())
        for number in range(VERSION):
            connection.execute("INSERT INTO ledger_version VALUES (%s, 0)", (number + 1,))
        for run_rows, call_rows in batches(options):
            for table, columns, rows in (("runs", OLD_RUN_COLUMNS, run_rows), ("lm_calls", CALL_COLUMNS, call_rows)):
                into = f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()
                with connection.cursor() as cursor, cursor.copy(into) as copy:
                    for row in rows:
                        copy.write_row(row)


@contextlib.contextmanager
def a_postgres() -> Iterator[str]:
    """Start a PostgreSQL server of its own, as the tests do."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.support import databases

    with databases.running_postgres() as running:
        assert running.process is not None
        server.append(running.process.pid)
        yield f"postgresql://postgres@127.0.0.1:{running.port}/postgres"
        server.clear()


def old_tables() -> list[Any]:
    """Return the statements that make the tables of the old version."""
    return [VERSION_TABLE, *(s for step in STEPS[:VERSION] for s in step)]


def batches(options: argparse.Namespace) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]]:
    """Yield the rows of runs and of LM calls, some thousands at a time."""
    chance = random.Random(7)
    now = time.time()
    for first in range(0, options.runs, 20_000):
        run_rows, call_rows = [], []
        for number in range(first, min(options.runs, first + 20_000)):
            started = now - options.days * 86400 * (1 - number / options.runs)
            run, calls = a_run(number, started, chance)
            run_rows.append(run)
            call_rows += calls
        yield run_rows, call_rows


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
