"""Where answers are kept: the protocol of a response cache's store."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec


class StoreStats(msgspec.Struct, frozen=True):
    """How much a store holds: entries, and bytes as the store counts them."""

    entries: int
    bytes: int


class Store(Protocol):
    """Keeps JSON-like values under text keys. What is wrong with one entry is a miss and never an error.

    ``get`` and ``put`` may be called on any event loop. The others are for people and scripts: they block.
    """

    name: str
    """What people call it: ``"disk (/home/me/.dspy_cache)"``."""

    async def get(self, key: str) -> Any | None:
        """Return the value, or ``None``: not there, not readable, or the store is down."""
        ...

    async def put(self, key: str, value: Any) -> None:
        """Keep a value. One that the store can't hold is not kept; a store that is down keeps nothing."""
        ...

    def stats(self) -> StoreStats:
        """Count what is there. Raises ``OSError`` when the store can't be reached."""
        ...

    def clear(self) -> int:
        """Remove everything and return how many entries that were. Raises ``OSError`` likewise."""
        ...

    def prune(self, *, max_bytes: int | None = None, older_than: float | None = None) -> int:
        """Remove what is older than ``older_than`` seconds, then the oldest until ``max_bytes`` are left at most.

        Returns how many entries were removed. Raises ``OSError`` likewise.
        """
        ...
