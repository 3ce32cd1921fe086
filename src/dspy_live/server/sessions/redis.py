"""Conversations in Redis or Valkey, for many replicas: JSON in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.runtime.stores.address import connected
from dspy_live.sansio.store_name import store_name
from dspy_live.server.sessions.store import Session, SessionInfo, Turn

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisSessions:
    """Keeps conversations under ``prefix``: of each a hash, a list of its turns, and a name for each turn.

    Args:
        url: ``redis://[user:password@]host:port/db``, ``rediss://…`` for TLS, ``unix://…``.
        prefix: the beginning of all keys.
        timeout: seconds to wait for the server.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` without the ``redis`` extra, or for a wrong URL.
    """

    def __init__(self, url: str, *, prefix: str = "dspy-live:sessions:", timeout: float = 5.0) -> None:
        try:
            from redis.asyncio import Redis
        except ImportError:
            raise ConfigurationError(
                "sessions in Redis or Valkey need the extra 'redis': pip install 'dspy-live[redis]'"
            ) from None
        self._redis: Redis = connected(Redis.from_url, url, socket_timeout=timeout, socket_connect_timeout=timeout)
        self._prefix = prefix
        self.name = store_name(url)

    async def load(self, key: str, session: str) -> Session | None:
        head, turns = await self._ask(
            lambda pipe: (pipe.hgetall(self._head(key, session)), pipe.lrange(self._turns(key, session), 0, -1))
        )
        if not head:
            return None
        kept = [msgspec.json.decode(turn, type=Turn) for turn in turns]
        return Session(session, head[b"program"].decode(), float(head[b"created"]), float(head[b"updated"]), kept)

    async def append(self, key: str, session: str, program: str, turns: list[Turn], most: int) -> None:
        name, updated = self._head(key, session), turns[-1].created
        before = await self.load(key, session)
        gone = [turn.id for turn in (*(before.turns if before else ()), *turns)][:-most]

        def add(pipe: Any) -> None:
            pipe.hsetnx(name, "program", program)
            pipe.hsetnx(name, "created", turns[0].created)
            pipe.hset(name, "updated", updated)
            pipe.rpush(self._turns(key, session), *(msgspec.json.encode(turn) for turn in turns))
            pipe.ltrim(self._turns(key, session), -most, -1)
            pipe.zadd(self._index(key), {session: updated})
            pipe.zadd(self._index(None), {_pair(key, session): updated})
            for turn in turns:
                if turn.id:
                    pipe.set(self._turn(key, turn.id), session)
            for turn_id in gone:
                pipe.delete(self._turn(key, turn_id))

        await self._ask(add)

    async def session_of(self, key: str, turn: str) -> str | None:
        (session,) = await self._ask(lambda pipe: pipe.get(self._turn(key, turn)))
        return None if session is None else session.decode()

    async def sessions(self, key: str, limit: int, before: float | None = None) -> list[SessionInfo]:
        highest = "+inf" if before is None else f"({before!r}"
        (names,) = await self._ask(
            lambda pipe: pipe.zrevrangebyscore(self._index(key), highest, "-inf", start=0, num=limit)
        )
        found = [await self.load(key, name.decode()) for name in names]
        return [SessionInfo(s.id, s.program, s.created, s.updated, len(s.turns)) for s in found if s is not None]

    async def delete(self, key: str, session: str) -> bool:
        found = await self.load(key, session)
        if found is None:
            return False

        def remove(pipe: Any) -> None:
            pipe.delete(self._head(key, session), self._turns(key, session))
            for turn in found.turns:
                pipe.delete(self._turn(key, turn.id))
            pipe.zrem(self._index(key), session)
            pipe.zrem(self._index(None), _pair(key, session))

        await self._ask(remove)
        return True

    async def prune(self, before: float) -> int:
        (old,) = await self._ask(lambda pipe: pipe.zrangebyscore(self._index(None), "-inf", f"({before!r}"))
        return sum([await self.delete(*msgspec.json.decode(pair)) for pair in old])

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def _ask(self, commands: Any) -> list[Any]:
        from redis.exceptions import RedisError

        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                commands(pipe)
                return list(await pipe.execute())
        except RedisError as exc:
            raise OSError(f"the sessions at {self.name}: {exc}") from exc

    def _head(self, key: str, session: str) -> str:
        return f"{self._prefix}session:{_pair(key, session)}"

    def _turns(self, key: str, session: str) -> str:
        return f"{self._prefix}turns:{_pair(key, session)}"

    def _turn(self, key: str, turn: str) -> str:
        return f"{self._prefix}turn:{_pair(key, turn)}"

    def _index(self, key: str | None) -> str:
        return f"{self._prefix}all" if key is None else f"{self._prefix}key:{key}"


def _pair(key: str, name: str) -> str:
    """Two names as one: JSON, so that no pair is another's."""
    return msgspec.json.encode([key, name]).decode()
