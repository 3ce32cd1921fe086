"""From an address to the store of conversations that it names."""

from __future__ import annotations

from pathlib import Path

from dspy_live.server.sessions.memory import MemorySessions
from dspy_live.server.sessions.postgres import PostgresSessions
from dspy_live.server.sessions.redis import RedisSessions
from dspy_live.server.sessions.sqlite import SqliteSessions, check_sqlite
from dspy_live.server.sessions.store import SessionStore


def open_sessions(address: str | Path) -> SessionStore:
    """Return the store of conversations at an address.

    Args:
        address: ``postgresql://…``, ``redis://…`` (``rediss``, ``unix``), ``memory``, or the path of a SQLite file.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a file that can't be opened or a missing extra. A
    database server is connected to at the first use.
    """
    kind = str(address).partition("://")[0]
    if address == "memory":
        return MemorySessions()
    if kind in ("postgresql", "postgres"):
        return PostgresSessions(str(address))
    if kind in ("redis", "rediss", "unix"):
        return RedisSessions(str(address))
    store = SqliteSessions(address)
    check_sqlite(store)
    return store
