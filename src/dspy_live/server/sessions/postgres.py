"""Conversations in PostgreSQL, for many replicas."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dspy_live.core.errors import ConfigurationError
from dspy_live.runtime.vanished import postgres_options
from dspy_live.sansio.store_name import store_name
from dspy_live.server.sessions.sql import TABLES, Rows, SqlSessions, Statement

if TYPE_CHECKING:
    from psycopg import Connection

_MAKING_TABLES = 0x64737073
"""The advisory lock that replicas which start together take turns by."""


class PostgresSessions(SqlSessions):
    """Keeps conversations in a database; a connection that is lost is made anew at the next use.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        timeout: seconds to wait for a connection.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` without the ``postgres`` extra.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise ConfigurationError(
                "sessions in PostgreSQL need the extra 'postgres': pip install 'dspy-live[postgres]'"
            ) from None
        super().__init__()
        self.name = store_name(url, "postgresql")
        self._url, self._timeout = url, timeout
        self._connection: Connection[tuple[Any, ...]] | None = None

    def execute(self, statements: Sequence[Statement]) -> list[Rows]:
        import psycopg

        try:
            connection = self._connected()
            with connection.transaction():
                cursors = [connection.execute(sql.replace("?", "%s").encode(), given) for sql, given in statements]
                return [cursor.fetchall() if cursor.description else [] for cursor in cursors]
        except psycopg.Error as exc:
            self.close()
            raise OSError(f"the sessions in {self.name}: {str(exc).partition(chr(10))[0]}") from exc

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _connected(self) -> Connection[tuple[Any, ...]]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        import psycopg

        connection = psycopg.connect(self._url, autocommit=True, **postgres_options(self._url, self._timeout))
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MAKING_TABLES,))
            for table in TABLES:
                connection.execute(table.encode())
        self._connection = connection
        return connection
