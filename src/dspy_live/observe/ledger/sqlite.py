"""The ledger in an SQLite file: write-ahead log, so that readers and a killed process do no harm."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dspy_live.core.errors import ConfigurationError
from dspy_live.observe.ledger.backend import Row
from dspy_live.observe.ledger.schema import (
    CALL_COLUMNS,
    RUN_COLUMNS,
    STEPS,
    VERSION_TABLE,
    Dialect,
    in_dialect,
    insert,
)
from dspy_live.observe.ledger.sums import SUMS, Table, summing

# Many rows to a statement: the driver gives up the interpreter's lock once for each statement, each time to wait for
# it again, up to 5 ms beside a busy event loop. 64 rows bind 1216 values; SQLite takes 32,766.
_SIZES = (64, 16, 4, 1)
_INSERTS: dict[Table, list[tuple[int, str]]] = {
    "runs": [(n, insert("runs", RUN_COLUMNS, n)) for n in _SIZES],
    "lm_calls": [(n, insert("lm_calls", CALL_COLUMNS, n)) for n in _SIZES],
}
_SUMMING = {table: summing(table) for table in SUMS}

LOCK_TIMEOUT = 10.0
"""Seconds that a statement waits for another process's lock."""
FORK_TIMEOUT = 5.0
"""Seconds that a fork waits for the write under way, and as long for the query under way."""

_OF_THE_DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})

_inherited: list[tuple[sqlite3.Connection, sqlite3.Connection]] = []


class SQLiteBackend:
    """One file, for any number of processes on one machine.

    Args:
        path: the file; its folder is made when it isn't there.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a file that is no ledger or is newer than this
    version of the library.
    """

    dialect: Dialect = "sqlite"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._paused: list[threading.Lock] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._connect()
        except (OSError, sqlite3.Error) as exc:
            raise ConfigurationError(f"the ledger {self.name!r} can't be opened: {exc}") from None
        try:
            self._write_ahead()
            self._migrate()
            # Questions have a connection of their own: a long one must not hold up the writer.
            self._reader = self._connect()
        except sqlite3.Error as exc:
            self._connection.close()
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
                raise ConfigurationError(f"the ledger {self.name!r} can't be written: {exc}") from None
            raise ConfigurationError(f"{self.name!r} is no ledger: {exc}") from None
        except BaseException:
            self._connection.close()
            raise

    def write(self, runs: Sequence[Row], calls: Sequence[Row]) -> None:
        with self._transaction() as connection:
            if runs:
                _insert(connection, "runs", runs)
            if calls:
                _insert(connection, "lm_calls", calls)

    def read(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self._reading, self._failing_as_os_error():
            return self._reader.execute(statement, parameters).fetchall()

    def change(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        with self._transaction() as connection:
            return connection.execute(statement, parameters).rowcount

    def change_all(self, statements: Sequence[str]) -> None:
        with self._transaction() as connection:
            for statement in statements:
                connection.execute(statement)

    def pause(self) -> None:
        # A statement that is under way holds locks inside SQLite, which no thread of the child would ever release.
        self._paused = [lock for lock in (self._lock, self._reading) if lock.acquire(timeout=FORK_TIMEOUT)]

    def resume(self) -> None:
        for lock in self._paused:
            lock.release()
        self._paused = []

    def reopen(self) -> None:
        # Not closed: SQLite forbids a child every use of its parent's connections, closing them too.
        _inherited.append((self._connection, self._reader))
        self._lock, self._reading, self._paused = threading.Lock(), threading.Lock(), []
        self._connection, self._reader = self._connect(), self._connect()

    def close(self) -> None:
        with self._lock, self._reading:
            self._connection.close()
            self._reader.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        # NORMAL: a commit survives the end of the process; after a power cut the last ones may be gone.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA temp_store = MEMORY")
        for of_a_batch in _SUMMING.values():
            connection.execute(of_a_batch.table)
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._failing_as_os_error():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        # After a full disk SQLite has done so already, and to ask for it again is an error that would hide that one.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _failing_as_os_error(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise OSError(f"the ledger {self.name!r}: {exc}") from exc

    def _write_ahead(self) -> None:
        # SQLite does not wait for its lock here, and processes that start together all ask for it.
        until = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as exc:
                if "locked" not in str(exc) or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _migrate(self) -> None:
        self._connection.execute(in_dialect(VERSION_TABLE, "sqlite"))
        while (version := self._version()) < len(STEPS):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self._version() == version:  # else another process was quicker
                    for statement in STEPS[version]:
                        self._connection.execute(in_dialect(statement, "sqlite"))
                    self._connection.execute("INSERT INTO ledger_version VALUES (?, ?)", (version + 1, time.time()))
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        if version > len(STEPS):
            raise ConfigurationError(
                f"the ledger {self.name!r} is of version {version}, and this dspy-live knows {len(STEPS)}: upgrade it"
            )

    def _version(self) -> int:
        (found,) = self._connection.execute("SELECT COALESCE(MAX(version), 0) FROM ledger_version").fetchone()
        return int(found)


def _insert(connection: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows and add them to the sums. Those that are there already are left out of both."""
    summing = _SUMMING[table]
    newest = connection.execute(summing.newest).fetchone()
    done = 0
    for size, statement in _INSERTS[table]:
        while len(rows) - done >= size:
            connection.execute(statement, list(chain.from_iterable(rows[done : done + size])))
            done += size
    connection.execute(summing.gather, newest)
    for statement in summing.add:
        connection.execute(statement)
