"""The rules of every Store of a response cache, as tests that any store can be put through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dspy_live.core.store import Store

VALUES: tuple[Any, ...] = (
    {"outputs": ["text"], "usage": {"total_tokens": 3, "cost": 0.25}, "none": None, "yes": True},
    {"text": 'Grüße 🎉 \u2028 " \\ \x00'},
    {"deep": {"list": [[1], [2, [3]]]}},
    {},
    [],
    "only text",
    0,
)


class StoreConformance:
    """Subclass it in a test module as ``class TestMine(StoreConformance)`` and give it a store."""

    def make_store(self) -> Store:
        """Return an empty store. Called on the running loop, once for each test."""
        raise NotImplementedError

    async def close_store(self, store: Store) -> None:
        """Release the store's connections; called at the end of each test."""

    def test_what_was_put_is_got(self) -> None:
        self._with_store(self._put_and_get)

    def test_the_newest_value_counts(self) -> None:
        self._with_store(self._overwrite)

    def test_what_it_cannot_hold_is_not_kept_and_no_error(self) -> None:
        self._with_store(self._unholdable)

    def test_many_at_once(self) -> None:
        self._with_store(self._at_once)

    def test_it_counts_and_clears(self) -> None:
        self._with_store(self._count_and_clear)

    def test_it_prunes_the_oldest_down_to_a_size(self) -> None:
        self._with_store(self._prune_size)

    def test_it_prunes_by_age(self) -> None:
        self._with_store(self._prune_age)

    def _with_store(self, test: Callable[[Store], Awaitable[None]]) -> None:
        async def main() -> None:
            store = self.make_store()
            try:
                await test(store)
            finally:
                await self.close_store(store)

        asyncio.run(main())

    async def _put_and_get(self, store: Store) -> None:
        assert isinstance(store.name, str)
        assert store.name
        for number, value in enumerate(VALUES):
            key = f"key {number} ü/:*" + "x" * 200
            assert await store.get(key) is None
            await store.put(key, value)
            assert await store.get(key) == value

    async def _overwrite(self, store: Store) -> None:
        await store.put("k", {"n": 1})
        await store.put("k", {"n": 2})
        assert await store.get("k") == {"n": 2}
        assert store.stats().entries == 1

    async def _unholdable(self, store: Store) -> None:
        await store.put("k", {"o": object()})
        assert await store.get("k") is None
        await store.put("k", {"n": 1})
        assert await store.get("k") == {"n": 1}

    async def _at_once(self, store: Store) -> None:
        await asyncio.gather(*(store.put(f"k{n}", {"n": n}) for n in range(50)))
        assert await asyncio.gather(*(store.get(f"k{n}") for n in range(50))) == [{"n": n} for n in range(50)]

    async def _count_and_clear(self, store: Store) -> None:
        assert store.stats().entries == 0
        await store.put("a", {"text": "x" * 1000})
        small = store.stats().bytes
        await store.put("b", {"text": "x" * 9000})
        assert store.stats().entries == 2
        assert store.stats().bytes >= small + 5000, "bytes must follow the contents"
        assert store.clear() == 2
        assert store.stats().entries == 0
        assert await store.get("a") is None
        assert store.clear() == 0

    async def _prune_size(self, store: Store) -> None:
        for n in range(4):
            await store.put(f"k{n}", {"text": "x" * 1000, "n": n})
            await asyncio.sleep(0.01)  # stores go by the wall clock
        held = store.stats().bytes
        assert store.prune(max_bytes=held) == 0
        assert store.prune(max_bytes=held // 2) == 2
        assert [await store.get(f"k{n}") is not None for n in range(4)] == [False, False, True, True]
        assert store.prune(max_bytes=0) == 2

    async def _prune_age(self, store: Store) -> None:
        for _ in range(20):
            store.clear()
            await store.put("old", {"n": 1})
            await asyncio.sleep(0.6)
            put = time.monotonic()
            await store.put("new", {"n": 2})
            assert store.prune(older_than=3600) == 0
            asked = time.monotonic()
            pruned = store.prune(older_than=asked - put + 0.5)
            if time.monotonic() - asked < 0.5:  # else the machine stood still, and the new one was as old as that
                break
        assert pruned == 1
        assert await store.get("old") is None
        assert await store.get("new") == {"n": 2}
