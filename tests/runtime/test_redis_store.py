"""The shared store against a real server: what is foreign stays, what is down is a miss."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from typing import Any

import pytest
import redis
from tests.support.databases import Server
from tests.support.ports import refusing_port
from tests.support.until import BOUND

from dspy_live.core.errors import ConfigurationError
from dspy_live.runtime.stores import redis as redis_store
from dspy_live.runtime.stores.redis import RedisStore
from dspy_live.testing import StoreConformance


@pytest.fixture
def raw(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def store_at(url: str, **options: Any) -> RedisStore:
    """A store that waits for its server while the machine stands still."""
    return RedisStore(url, **{"timeout": BOUND, **options})


async def test_an_entry_of_one_process_is_found_by_another(redis_url: str) -> None:
    one, other, apart = store_at(redis_url), store_at(redis_url), store_at(redis_url, prefix="apart:")
    value = {"text": "Grüße 🎉", "n": [1, 2.5, None, True], "nested": {"a": []}}
    await one.put("k", value)
    assert await other.get("k") == value
    assert await other.get("none") is None
    assert await apart.get("k") is None
    for store in (one, other, apart):
        await store.aclose()


async def test_one_store_serves_several_loops(redis_url: str) -> None:
    store = store_at(redis_url)
    await store.put("k", 1)

    async def elsewhere() -> Any:
        try:
            return await store.get("k")
        finally:
            await store.aclose()

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == 1
    assert await store.get("k") == 1
    await store.aclose()


async def test_no_pickle_goes_in_or_comes_out(redis_url: str, raw: Any) -> None:
    store = store_at(redis_url, prefix="p:")
    await store.put("ours", {"a": 1})
    assert raw.get("p:ours") == b'{"a":1}'
    raw.set("p:evil", pickle.dumps(ValueError("x")))
    raw.rpush("p:list", 1)
    assert await store.get("evil") is None
    assert raw.exists("p:evil") == 1
    await store.put("object", {"a": object()})
    assert await store.get("object") is None
    await store.aclose()


async def test_a_value_that_is_too_large_is_not_kept(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "MAX_VALUE_BYTES", 10)
    store = store_at(redis_url)
    await store.put("big", "x" * 9)
    await store.put("small", "x" * 8)
    assert (await store.get("big"), await store.get("small")) == (None, "xxxxxxxx")
    await store.aclose()


async def test_entries_are_counted_pruned_by_age_and_size_and_cleared(redis_url: str, raw: Any) -> None:
    store = store_at(redis_url, prefix="a*[b]:")
    raw.set("a*[b]:foreign", "x" * 100)
    raw.set("aXb:", "not ours")
    for n in range(10):
        await store.put(f"k{n}", "x" * 98)
        raw.zadd("a*[b]:times", {f"k{n}": time.time() - 3600 * (10 - n)})
    assert (store.stats().entries, store.stats().bytes) == (11, 1100)
    assert store.prune(older_than=8.5 * 3600) == 3, "the foreign one has no age and is the oldest"
    assert store.prune(max_bytes=350) == 5
    assert [n for n in range(10) if await store.get(f"k{n}")] == [7, 8, 9]
    assert store.clear() == 3
    assert [k.decode() for k in raw.keys("*")] == ["aXb:"]
    await store.aclose()


async def test_an_entry_ends_after_its_time(redis_url: str, raw: Any) -> None:
    store = store_at(redis_url, prefix="p:", ttl=1000)
    await store.put("k", 1)
    assert 900_000 < raw.pttl("p:k") <= 1_000_000
    raw.delete("p:k")
    assert store.stats().entries == 0
    assert store.prune(max_bytes=0) == 0
    assert raw.zcard("p:times") == 0, "prune forgets what has expired"
    await store.aclose()


async def test_a_store_that_is_down_is_a_miss_with_one_warning_and_comes_back(
    redis_server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "REST", 0.0)
    store = store_at(f"redis://127.0.0.1:{redis_server.port}")
    await store.put("k", 1)
    assert await store.get("k") == 1
    redis_server.stop()
    for _ in range(3):
        await store.put("k", 2)
        assert await store.get("k") is None
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "does not answer" in warnings[0].getMessage()
    for ask in (store.stats, store.clear, lambda: store.prune(max_bytes=1)):
        with pytest.raises(OSError, match="does not answer"):
            ask()
    redis_server.start()
    await store.put("k", 3)
    assert await store.get("k") == 3
    assert "answers again" in caplog.text
    await store.aclose()


async def test_a_store_that_is_down_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each call would wait for a server that is not there."""
    with refusing_port() as port:
        store = RedisStore(f"redis://127.0.0.1:{port}")
        asked: list[int] = []
        client = store._client
        monkeypatch.setattr(store, "_client", lambda: asked.append(1) or client())
        monkeypatch.setattr(redis_store, "REST", 1000.0)
        for _ in range(10):
            assert await store.get("k") is None
            await store.put("k", 1)
        assert asked == [1]
        await store.aclose()


async def test_a_server_that_never_answers_costs_no_more_than_the_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = RedisStore(f"redis://127.0.0.1:{port}", timeout=0.05)
    async with asyncio.timeout(BOUND):
        assert await store.get("k") is None
    await store.aclose()
    server.close()


@pytest.mark.parametrize(
    "wrong", [{"url": "http://x"}, {"url": "redis://x", "ttl": 0}, {"url": "redis://x", "timeout": -1}]
)
def test_settings_that_can_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RedisStore(**wrong)


class TestConformance(StoreConformance):
    @pytest.fixture(autouse=True)
    def address(self, redis_url: str) -> None:
        self.url = redis_url

    def make_store(self) -> RedisStore:
        return store_at(self.url)

    async def close_store(self, store: Any) -> None:
        await store.aclose()


def test_a_password_is_not_part_of_the_name() -> None:
    assert RedisStore("redis://me:secret@example.org:6380/2").name == "redis://example.org:6380/2"
