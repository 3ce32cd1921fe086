"""Conversations in this process's memory, for tests and for apps that need no more."""

from __future__ import annotations

from collections import OrderedDict

from dspy_live.server.encoders.json import dumps
from dspy_live.server.sessions.store import Session, SessionInfo, Turn

MOST_SESSIONS = 10_000
MOST_BYTES = 256 << 20
"""Of JSON; images and files are kept with their turns."""


class MemorySessions:
    """Keeps conversations for as long as the process lives.

    Args:
        most: how many there may be; then the one that was used the longest ago goes.
        most_bytes: how large they may be together, as JSON; likewise.
    """

    name = "memory"

    def __init__(self, most: int = MOST_SESSIONS, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._of_turn: dict[tuple[str, str], str] = {}

    async def load(self, key: str, session: str) -> Session | None:
        return self._kept.get((key, session))

    async def append(self, key: str, session: str, program: str, turns: list[Turn], most: int) -> None:
        before = self._kept.pop((key, session), None)
        self._bytes += sum(map(_size, turns))
        all_turns = [*(before.turns if before else ()), *turns]
        created = before.created if before else turns[0].created
        for gone in all_turns[:-most]:
            self._of_turn.pop((key, gone.id), None)
            self._bytes -= _size(gone)
        kept = all_turns[-most:]
        self._kept[key, session] = Session(session, program, created, turns[-1].created, kept)
        self._of_turn.update({(key, turn.id): session for turn in turns if turn.id})
        while len(self._kept) > self._most or (self._bytes > self._most_bytes and self._kept):
            self._remove(next(iter(self._kept)))

    async def session_of(self, key: str, turn: str) -> str | None:
        return self._of_turn.get((key, turn))

    async def sessions(self, key: str, limit: int, before: float | None = None) -> list[SessionInfo]:
        mine = [s for (owner, _), s in self._kept.items() if owner == key and (before is None or s.updated < before)]
        mine.sort(key=lambda s: s.updated, reverse=True)
        return [SessionInfo(s.id, s.program, s.created, s.updated, len(s.turns)) for s in mine[:limit]]

    async def delete(self, key: str, session: str) -> bool:
        if (key, session) not in self._kept:
            return False
        self._remove((key, session))
        return True

    async def prune(self, before: float) -> int:
        old = [place for place, session in self._kept.items() if session.updated < before]
        for place in old:
            self._remove(place)
        return len(old)

    async def aclose(self) -> None:
        return None

    def _remove(self, place: tuple[str, str]) -> None:
        for turn in self._kept.pop(place).turns:
            self._of_turn.pop((place[0], turn.id), None)
            self._bytes -= _size(turn)


def _size(turn: Turn) -> int:
    return len(dumps(turn.messages))
