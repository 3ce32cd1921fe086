"""One request of a conversation at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dspy_live.core.errors import RateLimited

MOST_WAITING = 16
"""Requests that may wait for one conversation."""


class SessionBusy(RateLimited):
    """Too many requests wait for one conversation."""

    code = "session_busy"


class InTurn:
    """The line of those who wait for one conversation. ``deleted`` is set when it is deleted meanwhile."""

    __slots__ = ("deleted", "lock", "members")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.members = 0
        self.deleted = False


class Lines:
    """The conversations that are asked for now, by key and name."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], InTurn] = {}

    def __len__(self) -> int:
        return len(self._lines)

    @asynccontextmanager
    async def turn(self, key: str, session: str) -> AsyncIterator[InTurn]:
        """Wait for those who came before. Raises :class:`SessionBusy` where too many wait."""
        line = self._lines.setdefault((key, session), InTurn())
        if line.members > MOST_WAITING:
            raise SessionBusy(
                f"{MOST_WAITING} requests wait for the session {session!r} already; a session answers one at a time"
            )
        line.members += 1
        try:
            async with line.lock:
                line.deleted = False
                yield line
        finally:
            line.members -= 1
            if not line.members:
                self._lines.pop((key, session), None)

    def deleted(self, key: str, session: str) -> None:
        """Have the request that is being answered now leave nothing behind."""
        line = self._lines.get((key, session))
        if line is not None:
            line.deleted = True
