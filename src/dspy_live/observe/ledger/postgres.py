"""The ledger in PostgreSQL, for many replicas."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from dspy_live.core.errors import ConfigurationError
from dspy_live.observe.ledger.backend import Row
from dspy_live.observe.ledger.schema import (
    CALL_COLUMNS,
    RUN_COLUMNS,
    STEPS,
    VERSION_TABLE,
    Dialect,
    in_dialect,
    insert_json,
)
from dspy_live.runtime.vanished import postgres_options
from dspy_live.sansio.store_name import store_name

if TYPE_CHECKING:
    from psycopg import Connection

_RUNS = insert_json("runs", RUN_COLUMNS)
_CALLS = insert_json("lm_calls", CALL_COLUMNS)
_BATCH = (
    b"INSERT INTO ledger_writers VALUES (%s, %s, %s) ON CONFLICT (writer) DO UPDATE "
    b"SET batch = excluded.batch, written = excluded.written WHERE ledger_writers.batch <> excluded.batch"
)
"""Notes the writer's last batch; touches no row where that is the same."""
_MIGRATING = 0x64737079
"""The advisory lock that replicas which start together take turns by."""

STARTING = 30.0
"""Seconds that a server which says that it is starting up is waited for."""
_AGAIN = 0.25
_STARTING_UP = ("the database system is starting up", "the database system is not yet accepting connections")

_inherited: list[Any] = []


class PostgresBackend:
    """One database. A connection that is lost is made anew at the next use.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        timeout: seconds to wait for a connection. When the ledger is opened, a server that says that it is starting
            up is waited for longer, 30 seconds at most.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` without the ``postgres`` extra, when the server can't be
    reached at the start, or when its tables are newer than this version of the library.
    """

    dialect: Dialect = "postgres"

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigurationError(
                "a ledger in PostgreSQL needs the extra 'postgres': pip install 'dspy-live[postgres]'"
            ) from None
        self.name = store_name(url, "postgresql")
        self._url, self._timeout = url, timeout
        self._lock = threading.Lock()
        self._writer = uuid4().hex
        self._connection: Connection[Row] | None = None
        self._opened = False
        try:
            with self._lock, self._connected() as connection:
                self._migrate(connection)
            self._opened = True
        except (OSError, psycopg.Error) as exc:
            self.close()
            reason = str(exc.__cause__ or exc).partition("\n")[0]
            raise ConfigurationError(f"the ledger {self.name} can't be opened: {reason}") from None
        except BaseException:
            self.close()
            raise

    def write(self, runs: Sequence[Row], calls: Sequence[Row]) -> None:
        rows = _json(runs), _json(calls)
        batch = sha256("".join(rows).encode()).hexdigest()
        with self._lock, self._connected() as connection, connection.transaction():
            # The answer to a commit may be lost with the connection. The same rows once more are written already.
            if not connection.execute(_BATCH, (self._writer, batch, time.time())).rowcount:
                return
            if runs:
                connection.execute(_RUNS.encode(), (rows[0],))
            if calls:
                connection.execute(_CALLS.encode(), (rows[1],))

    def read(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self._lock, self._connected() as connection:
            return connection.execute(_with_psycopg_marks(statement), parameters).fetchall()

    def change(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        with self._lock, self._connected() as connection:
            return connection.execute(_with_psycopg_marks(statement), parameters).rowcount

    def change_all(self, statements: Sequence[str]) -> None:
        with self._lock, self._connected() as connection, connection.transaction():
            for statement in statements:
                connection.execute(statement.encode())

    def pause(self) -> None:
        """Nothing: the child shares no lock with this connection, and a slow server must not hold up a fork."""

    def resume(self) -> None:
        """Nothing."""

    def reopen(self) -> None:
        # Not closed: the farewell would go to the server over the parent's socket.
        _inherited.append(self._connection)
        self._writer = uuid4().hex
        self._lock = threading.Lock()
        self._connection = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(Exception):
                    self._connection.execute(b"DELETE FROM ledger_writers WHERE writer = %s", (self._writer,))
                self._connection.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection[Row]]:
        import psycopg

        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            yield self._connection
        except psycopg.DataError as exc:
            raise ValueError(f"the ledger {self.name}: {exc}") from exc
        except psycopg.Error as exc:
            if isinstance(exc, psycopg.OperationalError) and self._connection is not None:
                self._connection.close()
            raise OSError(f"the ledger {self.name}: {exc}") from exc

    def _connect(self) -> Connection[Row]:
        import psycopg

        until = time.monotonic() + (0 if self._opened else STARTING)  # later on the writer tries again by itself
        while True:
            try:
                made = psycopg.connect(self._url, autocommit=True, **postgres_options(self._url, self._timeout))
                # Compiling a sum takes longer than the sum.
                made.execute(b"SET jit = off")
                return made
            except psycopg.OperationalError as exc:
                # A connection that was refused has no SQLSTATE (57P03), only its text.
                starting = exc.sqlstate == "57P03" or any(text in str(exc) for text in _STARTING_UP)
                if not starting or time.monotonic() > until:
                    raise
            time.sleep(_AGAIN)

    def _migrate(self, connection: Connection[Row]) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATING,))
            connection.execute(in_dialect(VERSION_TABLE, "postgres").encode())
            row = connection.execute("SELECT COALESCE(MAX(version), 0) FROM ledger_version").fetchone()
            version = int(row[0]) if row is not None else 0
            if version > len(STEPS):
                raise ConfigurationError(
                    f"the ledger {self.name} is of version {version}, and this dspy-live knows {len(STEPS)}: upgrade it"
                )
            for number, step in enumerate(STEPS[version:], version + 1):
                for statement in filter(None, (in_dialect(s, "postgres") for s in step)):
                    connection.execute(statement.encode())
                connection.execute("INSERT INTO ledger_version VALUES (%s, %s)", (number, time.time()))


def _json(rows: Sequence[Row]) -> str:
    # PostgreSQL's text can't hold the character 0, which SQLite's can.
    return orjson.dumps(rows).decode().replace("\\u0000", "\\ufffd")


def _with_psycopg_marks(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()
