"""``dspy-live cache``: what the cache holds, and making it hold less."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import dspy
import pytest
from tests.cli.conftest import Commands

from dspy_live.programs.cache.store import cache
from dspy_live.programs.internals import CACHE_FORMAT


@pytest.fixture
def filled(live: Commands) -> Iterator[Commands]:
    """Commands beside a cache with three entries."""
    before = dspy.cache
    dspy.configure_cache(disk_cache_dir=str(live.folder / "cache"), enable_memory_cache=False)

    async def fill() -> None:
        for n in range(3):
            await cache.put({"n": n}, {"_dspy_format": CACHE_FORMAT, "outputs": ["x" * 1000]})

    cache.use(None)
    asyncio.run(fill())
    cache.flush()
    yield live
    cache.use(None)
    dspy.cache.disk_cache.close()
    dspy.cache = before


def test_stats(filled: Commands) -> None:
    printed = filled.main("cache", "stats", "--json")
    found = json.loads(printed.stdout)
    assert found["entries"] == 3
    assert found["bytes"] > 3000
    assert found["store"] == f"disk ({filled.folder / 'cache'})"
    assert "entries  3" in filled.main("cache", "stats").stdout


def test_prune_and_clear(filled: Commands) -> None:
    pruned = filled.main("cache", "prune", "--max-bytes", "2.5kB", "--json")
    assert json.loads(pruned.stdout) == {"removed": 1, "left": 2}
    assert filled.main("cache", "prune", "--older-than", "1h").stdout.split() == ["removed", "0", "left", "2"]
    refused = filled.main("cache", "clear")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert filled.main("cache", "clear", "--yes").stdout.split() == ["removed", "2"]
    assert json.loads(filled.main("cache", "stats", "--json").stdout)["entries"] == 0


@pytest.mark.parametrize(
    "words", [("prune",), ("prune", "--max-bytes", "big"), ("stats", "--max-bytes", "1MB"), ("shrink",)]
)
def test_wrong_words_are_told_in_one_line(words: tuple[str, ...], filled: Commands) -> None:
    wrong = filled.main("cache", *words)
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1


def test_a_shared_cache(filled: Commands, redis_url: str) -> None:
    printed = filled.main("cache", "stats", "--redis", redis_url, "--json")
    assert json.loads(printed.stdout) == {"store": redis_url, "entries": 0, "bytes": 0}
    cache._is_chosen = False
    down = filled.main("cache", "stats", DSPY_LIVE_CACHE="redis://127.0.0.1:1")
    assert (down.returncode, "does not answer" in down.stderr) == (1, True)
