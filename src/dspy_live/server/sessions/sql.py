"""Conversations in a SQL database: the statements, one transaction each, in a thread of the store's own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from dspy_live.server.encoders.json import dumps
from dspy_live.server.sessions.store import Session, SessionInfo, Turn

Rows = list[tuple[Any, ...]]
Statement = tuple[str, Sequence[Any]]

TABLES = (
    """CREATE TABLE IF NOT EXISTS sessions (
        key TEXT NOT NULL, id TEXT NOT NULL, program TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL, updated DOUBLE PRECISION NOT NULL, turns BIGINT NOT NULL,
        PRIMARY KEY (key, id))""",
    "CREATE INDEX IF NOT EXISTS sessions_updated ON sessions (updated)",
    """CREATE TABLE IF NOT EXISTS session_turns (
        key TEXT NOT NULL, session TEXT NOT NULL, position BIGINT NOT NULL,
        id TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, messages TEXT NOT NULL,
        PRIMARY KEY (key, session, position),
        FOREIGN KEY (key, session) REFERENCES sessions (key, id) ON DELETE CASCADE)""",
    "CREATE INDEX IF NOT EXISTS session_turns_id ON session_turns (key, id)",
)
_LIST = (
    "SELECT id, program, created, updated,"
    " (SELECT COUNT(*) FROM session_turns t WHERE t.key = s.key AND t.session = s.id)"
    " FROM sessions s WHERE key = ? AND updated < ? ORDER BY updated DESC LIMIT ?"
)
_BEGIN = (
    "INSERT INTO sessions (key, id, program, created, updated, turns) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (key, id) DO UPDATE SET updated = excluded.updated, turns = sessions.turns + excluded.turns"
)
_ADD = (
    "INSERT INTO session_turns (key, session, position, id, created, messages)"
    " SELECT key, id, turns - ?, ?, ?, ? FROM sessions WHERE key = ? AND id = ?"
)
_CUT = (
    "DELETE FROM session_turns WHERE key = ? AND session = ? AND position < "
    "(SELECT turns - ? FROM sessions WHERE key = ? AND id = ?)"
)


class SqlSessions(ABC):
    """Keeps conversations in two tables. ``sessions.turns`` counts all turns that a session has ever had."""

    name: str

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dspy-live-sessions")

    @abstractmethod
    def execute(self, statements: Sequence[Statement]) -> list[Rows]:
        """Execute statements in one transaction and return the rows of each. Raises ``OSError``."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    async def load(self, key: str, session: str) -> Session | None:
        head, turns = await self._ask(
            ("SELECT program, created, updated FROM sessions WHERE key = ? AND id = ?", (key, session)),
            (
                "SELECT id, created, messages FROM session_turns WHERE key = ? AND session = ? ORDER BY position",
                (key, session),
            ),
        )
        if not head:
            return None
        kept = [Turn(of, created, msgspec.json.decode(messages)) for of, created, messages in turns]
        program, created, updated = head[0]
        return Session(session, program, created, updated, kept)

    async def append(self, key: str, session: str, program: str, turns: list[Turn], most: int) -> None:
        begin = (_BEGIN, (key, session, program, turns[0].created, turns[-1].created, len(turns)))
        add = [
            (_ADD, (len(turns) - i, turn.id, turn.created, dumps(turn.messages).decode(), key, session))
            for i, turn in enumerate(turns)
        ]
        await self._ask(begin, *add, (_CUT, (key, session, most, key, session)))

    async def session_of(self, key: str, turn: str) -> str | None:
        (rows,) = await self._ask(("SELECT session FROM session_turns WHERE key = ? AND id = ?", (key, turn)))
        return rows[0][0] if rows else None

    async def sessions(self, key: str, limit: int, before: float | None = None) -> list[SessionInfo]:
        (rows,) = await self._ask((_LIST, (key, 1e300 if before is None else before, limit)))
        return [SessionInfo(*row) for row in rows]

    async def delete(self, key: str, session: str) -> bool:
        (rows,) = await self._ask(("DELETE FROM sessions WHERE key = ? AND id = ? RETURNING id", (key, session)))
        return bool(rows)

    async def prune(self, before: float) -> int:
        (rows,) = await self._ask(("DELETE FROM sessions WHERE updated < ? RETURNING id", (before,)))
        return len(rows)

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self.close)
        self._thread.shutdown(wait=False)

    async def _ask(self, *statements: Statement) -> list[Rows]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.execute, statements)
