"""Reads DSPy's cache directory beside DSPy: the same files, but only known types, and nothing is ever deleted.

The layout is ``diskcache``'s: 16 folders with an SQLite database each, large values in files beside it. A key lies in
the folder of its Adler-32 checksum. Opening a second ``FanoutCache`` there would overwrite the size limit that DSPy
has set, so that this reads the rows itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspy_live.programs.cache.safe_pickle import Allowed, ForeignEntry, load

logger = logging.getLogger("dspy_live.cache")

_RAW, _BINARY, _TEXT, _PICKLE = 1, 2, 3, 4
_FIND = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"
_BATCH = 500


class DiskReader:
    """One cache directory, for any thread and after a fork.

    Args:
        directory: DSPy's cache directory.
        allowed: what the user declared safe to unpickle, as (module, name).
    """

    def __init__(self, directory: str, allowed: Allowed = frozenset()) -> None:
        self.directory = Path(directory)
        self._allowed = allowed
        self._shards = sorted(p for p in self.directory.glob("[0-9][0-9][0-9]") if (p / "cache.db").is_file())
        self._local = threading.local()

    def get(self, key: str) -> Any | None:
        """Return the value under ``key``; ``None`` when there is none that is known and whole."""
        shard = self._shard_of(key)
        if shard is None:
            return None
        try:
            row = self._connection(shard).execute(_FIND, (key, time.time())).fetchone()
            return None if row is None else self._value(shard, *row)
        except (ForeignEntry, OSError, sqlite3.Error, UnicodeDecodeError) as exc:
            logger.debug("the cache entry %s is left where it is and counts as a miss: %s", key, exc)
            return None

    def sizes(self) -> tuple[int, int]:
        """Return entries and bytes: the rows' values and the files, without SQLite's own pages."""
        entries = size = 0
        for shard in self._shards:
            with _opened(shard) as db:
                count, inline, files = db.execute(
                    "SELECT COUNT(*), SUM(LENGTH(value)), SUM(size) FROM Cache"
                ).fetchone()
            entries += count
            size += (inline or 0) + (files or 0)
        return entries, size

    def prune(self, *, max_bytes: int | None, older_than: float | None) -> int:
        """Remove entries, the oldest first, as :class:`~dspy_live.core.store.Store` says; return how many."""
        rows: list[tuple[float, int, Path, int]] = []
        for shard in self._shards:
            with _opened(shard) as db:
                found = db.execute("SELECT store_time, rowid, COALESCE(LENGTH(value), 0) + size FROM Cache")
                rows += [(stored or 0.0, size, shard, rowid) for stored, rowid, size in found]
        rows.sort(key=lambda row: row[0])
        keep_from = 0
        if older_than is not None:
            limit = time.time() - older_than
            keep_from = next((i for i, row in enumerate(rows) if row[0] >= limit), len(rows))
        if max_bytes is not None:
            left = sum(row[1] for row in rows[keep_from:])
            while left > max_bytes:
                left -= rows[keep_from][1]
                keep_from += 1
        doomed: dict[Path, list[int]] = {}
        for _, _, shard, rowid in rows[:keep_from]:
            doomed.setdefault(shard, []).append(rowid)
        return sum(_remove(shard, ids) for shard, ids in doomed.items())

    def _shard_of(self, key: str) -> Path | None:
        if not self._shards:
            return None
        return self._shards[zlib.adler32(key.encode()) % len(self._shards)]

    def _connection(self, shard: Path) -> sqlite3.Connection:
        # SQLite connections stand neither another thread nor a fork.
        local = self._local
        if getattr(local, "pid", None) != os.getpid():
            local.pid, local.connections = os.getpid(), {}
        connection: sqlite3.Connection | None = local.connections.get(shard)
        if connection is None:
            connection = sqlite3.connect(shard / "cache.db", timeout=1.0, isolation_level=None)
            connection.execute("PRAGMA query_only = 1")
            local.connections[shard] = connection
        return connection

    def _value(self, shard: Path, mode: int, filename: str | None, value: Any) -> Any:
        if mode == _RAW:
            return value
        content = bytes(value) if filename is None else _inside(shard, filename).read_bytes()
        if mode == _PICKLE:
            return load(content, self._allowed)
        return content.decode() if mode == _TEXT else content


@contextlib.contextmanager
def _opened(shard: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(shard / "cache.db", timeout=10.0, isolation_level=None)
    try:
        yield connection
    except sqlite3.Error as exc:
        raise OSError(f"the cache in {str(shard.parent)!r} can't be read: {exc}") from exc
    finally:
        connection.close()


def _remove(shard: Path, rowids: list[int]) -> int:
    removed = 0
    with _opened(shard) as db:
        for start in range(0, len(rowids), _BATCH):
            some = rowids[start : start + _BATCH]
            marks = ",".join("?" * len(some))
            db.execute("BEGIN IMMEDIATE")
            files = db.execute(f"SELECT filename FROM Cache WHERE rowid IN ({marks})", some).fetchall()
            removed += db.execute(f"DELETE FROM Cache WHERE rowid IN ({marks})", some).rowcount
            db.execute("COMMIT")
            for (filename,) in files:
                if filename is not None:
                    with contextlib.suppress(ForeignEntry, OSError):
                        _inside(shard, filename).unlink()
    return removed


def _inside(shard: Path, filename: str) -> Path:
    # The database may have been written by a stranger: its paths must not lead out of the folder.
    path = (shard / filename).resolve()
    if not path.is_relative_to(shard.resolve()):
        raise ForeignEntry(f"{filename!r} leads out of the cache")
    return path
