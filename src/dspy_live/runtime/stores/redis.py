"""A response cache that many processes share: Redis or Valkey. JSON in and out, never a pickle."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.store import StoreStats
from dspy_live.runtime.stores.address import connected
from dspy_live.sansio.store_name import store_name

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

logger = logging.getLogger("dspy_live.cache")

MAX_VALUE_BYTES = 16 * 1024 * 1024
"""A reply above this is not kept: it would hold up the server for everybody."""
REST = 5.0
"""Seconds for which a store that did not answer is left alone. Each call would wait for it otherwise."""
_CONNECTIONS = 64
_BATCH = 1000


class RedisStore:
    """Keeps values in Redis or Valkey under ``prefix``. While the server is down everything is a miss.

    The first failure is logged as a warning, and the recovery too; in between the server is tried every 5 s. Entries
    are never trusted: one that is no JSON of ours is a miss and stays in the server.

    Args:
        url: ``redis://[user:password@]host:port/db``, ``rediss://…`` for TLS, ``unix://…``.
        prefix: the beginning of all keys; programs that should not share replies take different ones.
        ttl: seconds until an entry is gone; ``None`` keeps it until it is pruned or the server evicts it.
        timeout: seconds to wait for the server, to connect and to answer.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` without the ``redis`` extra, or for a wrong URL.
    """

    def __init__(
        self, url: str, *, prefix: str = "dspy-live:cache:", ttl: float | None = None, timeout: float = 1.0
    ) -> None:
        if (ttl is not None and not ttl > 0) or not timeout > 0:
            raise ConfigurationError(f"ttl and timeout must be seconds above 0; got {ttl!r} and {timeout!r}")
        self._url, self._prefix, self._ttl, self._timeout = url, prefix, ttl, timeout
        self._times = f"{prefix}times"
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncRedis] = weakref.WeakKeyDictionary()
        self._admin: Redis = _connect_sync(url, timeout)
        self._rest_until = 0.0
        self._down = False
        self.name = store_name(url)

    async def get(self, key: str) -> Any | None:
        """Return the value under ``key``, or ``None``; never raises but for cancellation."""
        if time.monotonic() < self._rest_until:
            return None
        try:
            content = await self._client().get(self._prefix + key)
        except Exception as exc:
            self._failed(exc)
            return None
        self._answered()
        if content is None:
            return None
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError:
            logger.debug("the cache entry %s is no JSON and counts as a miss", key)
            return None

    async def put(self, key: str, value: Any) -> None:
        """Keep ``value`` under ``key``. One that is no JSON or too large is not. Never raises but for cancellation."""
        if time.monotonic() < self._rest_until:
            return
        try:
            content = msgspec.json.encode(value)
        except (TypeError, ValueError, msgspec.MsgspecError) as exc:
            logger.debug("a reply that JSON can't hold is not kept: %s", exc)
            return
        if len(content) > MAX_VALUE_BYTES:
            logger.debug("a reply of %d bytes is not kept; the limit is %d", len(content), MAX_VALUE_BYTES)
            return
        px = None if self._ttl is None else max(1, int(self._ttl * 1000))
        try:
            async with self._client().pipeline(transaction=False) as pipe:
                _ = pipe.set(self._prefix + key, content, px=px)
                _ = pipe.zadd(self._times, {key: time.time()})
                await pipe.execute()
        except Exception as exc:
            self._failed(exc)
        else:
            self._answered()

    def stats(self) -> StoreStats:
        """Count entries and the bytes of their values; walks over all of them."""
        sizes = dict(self._sizes())
        return StoreStats(len(sizes), sum(sizes.values()))

    def clear(self) -> int:
        """Remove every entry under the prefix, and nothing else."""
        keys = [key for key, _ in self._sizes()]
        self._remove(keys)
        self._ask("delete", self._times)
        return len(keys)

    def prune(self, *, max_bytes: int | None = None, older_than: float | None = None) -> int:
        """Remove entries, the oldest first; see :class:`~dspy_live.core.store.Store`."""
        stored = {key.decode(): when for key, when in self._ask("zrange", self._times, 0, -1, withscores=True)}
        rows = sorted((stored.get(key, 0.0), key, size) for key, size in self._sizes())
        self._forget(set(stored) - {key for _, key, _ in rows})
        limit = None if older_than is None else time.time() - older_than
        left = sum(size for _, _, size in rows)
        doomed = []
        for when, key, size in rows:
            if not ((limit is not None and when < limit) or (max_bytes is not None and left > max_bytes)):
                break
            doomed.append(key)
            left -= size
        self._remove(doomed)
        return len(doomed)

    async def aclose(self) -> None:
        """Close this loop's connections; the store may be used again."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
            await client.connection_pool.disconnect()
        self._admin.close()

    def _client(self) -> AsyncRedis:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            from redis.asyncio import BlockingConnectionPool, Redis

            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=_CONNECTIONS,
                timeout=self._timeout,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
            )
            client = self._clients[loop] = Redis(connection_pool=pool)
        return client

    def _failed(self, exc: Exception) -> None:
        self._rest_until = time.monotonic() + REST
        if not self._down:
            self._down = True
            logger.warning(
                "the cache at %s does not answer (%s: %s): until it does, nothing is found there and nothing kept",
                self.name,
                type(exc).__name__,
                exc,
            )

    def _answered(self) -> None:
        if self._down:
            self._down = False
            logger.warning("the cache at %s answers again", self.name)

    def _sizes(self) -> Iterator[tuple[str, int]]:
        cursor = 0
        seen: set[bytes] = set()
        while True:
            cursor, found = self._ask("scan", cursor, match=_escaped(self._prefix) + "*", count=_BATCH)
            keys = [k for k in found if k not in seen and k != self._times.encode()]
            seen.update(keys)
            pipe = self._admin.pipeline(transaction=False)
            for key in keys:
                pipe.strlen(key)
            for key, size in zip(keys, _asked(self.name, pipe.execute, raise_on_error=False), strict=True):
                if isinstance(size, int) and size:  # else it has just expired, or is no entry of ours
                    yield key.decode()[len(self._prefix) :], size
            if not cursor:
                return

    def _remove(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _BATCH):
            some = keys[start : start + _BATCH]
            self._ask("unlink", *(self._prefix + key for key in some))
        self._forget(set(keys))

    def _forget(self, keys: set[str]) -> None:
        names = list(keys)
        for start in range(0, len(names), _BATCH):
            self._ask("zrem", self._times, *names[start : start + _BATCH])

    def _ask(self, command: str, *arguments: Any, **options: Any) -> Any:
        return _asked(self.name, getattr(self._admin, command), *arguments, **options)


def _asked(name: str, function: Any, *arguments: Any, **options: Any) -> Any:
    from redis.exceptions import RedisError

    try:
        return function(*arguments, **options)
    except RedisError as exc:
        raise OSError(f"the cache at {name} does not answer: {exc}") from exc


def _connect_sync(url: str, timeout: float) -> Redis:
    try:
        from redis import Redis
    except ImportError:
        raise ConfigurationError(
            "a cache in Redis or Valkey needs the extra 'redis': pip install 'dspy-live[redis]'"
        ) from None
    return connected(Redis.from_url, url, socket_timeout=timeout, socket_connect_timeout=timeout)


def _escaped(prefix: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]^\\-" else c for c in prefix)
