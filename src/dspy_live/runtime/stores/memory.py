"""A store in this process's memory, bounded; the one that goes first is the one used longest ago."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.store import StoreStats


class MemoryStore:
    """Keeps values as JSON, so that no caller can change the value that another one gets.

    Args:
        max_bytes: bound of all values together, 64 MB by default.
        ttl: seconds until an entry is gone; ``None`` keeps it until it is pushed out.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for bounds that are not above 0.
    """

    name = "memory"

    def __init__(self, max_bytes: int = 64_000_000, *, ttl: float | None = None) -> None:
        if not max_bytes > 0 or (ttl is not None and not ttl > 0):
            raise ConfigurationError(f"max_bytes and ttl must be above 0; got {max_bytes!r} and {ttl!r}")
        self._max_bytes, self._ttl = max_bytes, ttl
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    async def get(self, key: str) -> Any | None:
        """Return the value under ``key``, or ``None``."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._ttl is not None and time.time() - entry[0] > self._ttl:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
        return msgspec.json.decode(entry[1])

    async def put(self, key: str, value: Any) -> None:
        """Keep ``value``. One that is no JSON, or larger than the whole store, is not kept."""
        try:
            content = msgspec.json.encode(value)
        except (TypeError, ValueError, msgspec.MsgspecError):
            return
        with self._lock:
            if key in self._entries:
                self._drop(key)
            if len(content) > self._max_bytes:
                return
            self._entries[key] = (time.time(), content)
            self._bytes += len(content)
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def stats(self) -> StoreStats:
        """Count entries and the bytes of their values."""
        with self._lock:
            return StoreStats(len(self._entries), self._bytes)

    def clear(self) -> int:
        """Remove everything and return how many entries that were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._bytes = 0
            return count

    def prune(self, *, max_bytes: int | None = None, older_than: float | None = None) -> int:
        """Remove old entries, then the oldest down to ``max_bytes``; see :class:`~dspy_live.core.store.Store`."""
        now = time.time()
        with self._lock:
            before = len(self._entries)
            for key, (stored, _) in sorted(self._entries.items(), key=lambda item: item[1][0]):
                old = older_than is not None and now - stored > older_than
                if not old and (max_bytes is None or self._bytes <= max_bytes):
                    break
                self._drop(key)
            return before - len(self._entries)

    def _drop(self, key: str) -> None:
        self._bytes -= len(self._entries.pop(key)[1])
