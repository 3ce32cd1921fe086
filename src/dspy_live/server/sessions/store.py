"""Where conversations are kept: the protocol of a store, and what it holds."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec


class Turn(msgspec.Struct, frozen=True):
    """One answered call.

    ``id`` is the call's, ``created`` seconds since 1970. ``messages`` are one JSON object of inputs and outputs each:
    the last is the call's own, those before it are a history that the client itself had sent.
    """

    id: str
    created: float
    messages: list[dict[str, Any]]


class SessionInfo(msgspec.Struct, frozen=True):
    """A conversation without its turns. Times are seconds since 1970."""

    id: str
    program: str
    created: float
    updated: float
    turns: int


class Session(msgspec.Struct, frozen=True):
    """A conversation, its turns the oldest first."""

    id: str
    program: str
    created: float
    updated: float
    turns: list[Turn]


class SessionStore(Protocol):
    """Keeps the conversations of API keys. Names are a key's own: two keys may each have a session of one name.

    Every method raises ``OSError`` when the store can't be reached.
    """

    name: str
    """What people call it: ``"memory"``, a path, an address without its password."""

    async def load(self, key: str, session: str) -> Session | None:
        """Return a conversation, or ``None``."""
        ...

    async def append(self, key: str, session: str, program: str, turns: list[Turn], most: int) -> None:
        """Add turns to a conversation, which begins with the first; its oldest beyond ``most`` are removed.

        It is all of them or none, whoever else writes.
        """
        ...

    async def session_of(self, key: str, turn: str) -> str | None:
        """Return the id of the conversation that has this turn, or ``None``."""
        ...

    async def sessions(self, key: str, limit: int, before: float | None = None) -> list[SessionInfo]:
        """Return a key's conversations, the last used first: ``limit`` of them, of those last used ``before``."""
        ...

    async def delete(self, key: str, session: str) -> bool:
        """Remove a conversation; return whether there was one."""
        ...

    async def prune(self, before: float) -> int:
        """Remove the conversations that were last used before that time, of all keys; return how many those were."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and files."""
        ...
