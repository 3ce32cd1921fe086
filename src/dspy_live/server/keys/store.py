"""The file of keys: their hashes and limits, and what each has used. SQLite, so that several processes may share it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.server.keys.key import Key
from dspy_live.server.keys.minute import MINUTE
from dspy_live.server.keys.quota import Spent

_VERSION = 1
_SCHEMA = """
CREATE TABLE keys (digest TEXT PRIMARY KEY, name TEXT NOT NULL, settings TEXT NOT NULL, created REAL NOT NULL,
    revoked REAL);
CREATE UNIQUE INDEX keys_by_name ON keys (name) WHERE revoked IS NULL;
CREATE TABLE spent (key TEXT NOT NULL, period TEXT NOT NULL, cost REAL NOT NULL, tokens INTEGER NOT NULL,
    calls INTEGER NOT NULL, PRIMARY KEY (key, period));
CREATE TABLE minutes (key TEXT NOT NULL, unit TEXT NOT NULL, second INTEGER NOT NULL, amount REAL NOT NULL,
    PRIMARY KEY (key, unit, second));
"""
_LOCK_TIMEOUT = 10.0


class StoredKey(NamedTuple):
    """A key of the file; ``created`` and ``revoked`` are Unix seconds, ``revoked`` is ``None`` for one that counts."""

    key: Key
    created: float
    revoked: float | None


class KeyStore:
    """A file of keys. It may be used from any thread, and by several processes of one machine.

    Args:
        path: the file; it is made, readable by its owner alone, when it isn't there.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a file that can't be opened, or is none of these.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            self._connection = sqlite3.connect(
                self.path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as exc:
            raise ConfigurationError(f"the file of keys {self.path} can't be opened: {exc}") from None
        try:
            self._prepare()
        except sqlite3.Error as exc:
            self._connection.close()
            raise ConfigurationError(f"{self.path} is no file of keys, or can't be written: {exc}") from None
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, key: Key) -> None:
        """Keep a new key. Raises :class:`ConfigurationError` where one of its name counts already."""
        settings = msgspec.json.encode(msgspec.structs.replace(key, digest="sha256:" + "0" * 64)).decode()
        try:
            with self._writing() as connection:
                connection.execute(
                    "INSERT INTO keys VALUES (?, ?, ?, ?, NULL)", (key.digest, key.name, settings, time.time())
                )
        except sqlite3.IntegrityError:
            raise ConfigurationError(
                f"there is a key {key.name!r} already; revoke it first: dspy-live keys revoke {key.name}"
            ) from None

    def revoke(self, name: str) -> bool:
        """Let the key of that name count no longer; false when there is none."""
        with self._writing() as connection:
            done = connection.execute(
                "UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL", (time.time(), name)
            )
            return done.rowcount > 0

    def all(self) -> list[StoredKey]:
        """Return all keys, the oldest first, revoked ones too."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT digest, settings, created, revoked FROM keys ORDER BY created, name"
            ).fetchall()
        try:
            return [
                StoredKey(msgspec.structs.replace(msgspec.json.decode(text, type=Key), digest=digest), created, revoked)
                for digest, text, created, revoked in rows
            ]
        except msgspec.DecodeError as exc:
            raise ConfigurationError(f"{self.path} has a key that can't be read: {exc}") from None

    def spend(self, taken: Mapping[tuple[str, str], Spent]) -> None:
        """Add what keys have used, by key's name and day or month."""
        rows = [(key, of, a["cost"], a["tokens"], a["calls"]) for (key, of), a in taken.items()]
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO spent VALUES (?, ?, ?, ?, ?) ON CONFLICT (key, period) DO UPDATE SET "
                "cost = cost + excluded.cost, tokens = tokens + excluded.tokens, calls = calls + excluded.calls",
                rows,
            )

    def spent(self, key: str, of: str) -> Spent:
        """Return what a key has used in a day or month, of all processes together."""
        with self._lock:
            row = self._connection.execute(
                "SELECT cost, tokens, calls FROM spent WHERE key = ? AND period = ?", (key, of)
            ).fetchone()
        cost, tokens, calls = row or (0.0, 0, 0)
        return {"cost": cost, "tokens": tokens, "calls": calls}

    def count(self, taken: Mapping[tuple[str, str], float], now: float) -> None:
        """Add the runs and tokens of now, by key's name and unit, and forget those of more than a minute ago."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO minutes VALUES (?, ?, ?, ?) ON CONFLICT (key, unit, second) DO UPDATE SET "
                "amount = amount + excluded.amount",
                [(key, unit, int(now), amount) for (key, unit), amount in taken.items()],
            )
            connection.execute("DELETE FROM minutes WHERE second < ?", (now - 2 * MINUTE,))

    def last_minute(self, key: str, unit: str, now: float) -> list[tuple[float, float]]:
        """Return ``(age in seconds, amount)`` of a key's last minute, the oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT second, amount FROM minutes WHERE key = ? AND unit = ? AND second > ? AND second <= ? "
                "ORDER BY second",
                (key, unit, now - MINUTE, now),
            ).fetchall()
        return [(now - second, amount) for second, amount in rows]

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        with self._writing():
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise ConfigurationError(f"{self.path} was made by a newer version of dspy-live")
            if version == 0:
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise sqlite3.DatabaseError("it holds other tables")
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # After a full disk SQLite has done so already: to ask for it again would hide that error.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
