"""Conversations in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from dspy_live.core.errors import ConfigurationError
from dspy_live.server.sessions.sql import TABLES, Rows, SqlSessions, Statement

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process that writes."""


class SqliteSessions(SqlSessions):
    """Keeps conversations in a file, which is made where there is none, and opened at the first use.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = str(path)
        self._connection: sqlite3.Connection | None = None

    def execute(self, statements: Sequence[Statement]) -> list[Rows]:
        try:
            connection = self._connection or self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                rows = [connection.execute(*statement).fetchall() for statement in statements]
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            raise OSError(f"the sessions in {self.name!r}: {exc}") from exc
        return rows

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            for table in TABLES:
                connection.execute(table)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection


def check_sqlite(store: SqliteSessions) -> None:
    """Raise :class:`ConfigurationError` where the file can't be opened."""
    try:
        store.execute([])
    except OSError as exc:
        raise ConfigurationError(str(exc)) from None
