"""The cache: DSPy's own files, read safely, shared by sync and async calls, counted, cleared and pruned."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.store import StoreStats
from dspy_live.programs.cache.safe_pickle import ForeignEntry, load
from dspy_live.programs.cache.store import ResponseCache
from dspy_live.programs.internals import CACHE_FORMAT, IGNORED_CACHE_KEYS
from dspy_live.runtime.stores.redis import RedisStore


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = dspy.cache
    dspy.configure_cache(disk_cache_dir=str(tmp_path / "cache"), enable_memory_cache=False)
    yield tmp_path / "cache"
    dspy.cache.disk_cache.close()
    dspy.cache = before


def a_request(n: int = 1) -> dict[str, Any]:
    return {"_fn_identifier": "dspy.clients.lm15.complete", "model": "openai/x", "messages": [{"n": n}]}


def a_record(text: str = "hello") -> dict[str, Any]:
    return {"_dspy_format": CACHE_FORMAT, "outputs": [text]}


def as_it_is(record: Any) -> Any:
    return record


def row_of(folder: Path, request: dict[str, Any]) -> tuple[Path, int]:
    key = dspy.cache.cache_key(request, IGNORED_CACHE_KEYS)
    for shard in sorted(folder.glob("0*")):
        with sqlite3.connect(shard / "cache.db") as db:
            found = db.execute("SELECT rowid FROM Cache WHERE key = ?", (key,)).fetchone()
        if found is not None:
            return shard, found[0]
    raise AssertionError("no such entry")


async def test_entries_of_dspy_are_found_and_dspy_finds_ours(folder: Path) -> None:
    ours = ResponseCache()
    dspy.cache.put(a_request(1), a_record("theirs"), IGNORED_CACHE_KEYS)
    assert await ours.get(a_request(1), as_it_is) == a_record("theirs")
    await ours.put(a_request(2), a_record("ours"))
    ours.flush()
    assert dspy.cache.get(a_request(2), IGNORED_CACHE_KEYS) == a_record("ours")
    assert await ours.get({**a_request(2), "api_key": "sk-other"}, as_it_is) == a_record("ours")


async def test_hits_and_misses_are_counted(folder: Path) -> None:
    ours = ResponseCache()
    assert await ours.get(a_request(), as_it_is) is None
    await ours.put(a_request(), a_record())
    for _ in range(2):
        assert await ours.get(a_request(), as_it_is) == a_record()
    stats = ours.stats()
    assert (stats["hits"], stats["misses"], stats["entries"]) == (2, 1, 1)
    assert stats["bytes"] > 0
    assert stats["store"] == f"disk ({folder})"


async def test_a_large_reply_lies_in_a_file_and_is_read_pruned_and_counted(folder: Path) -> None:
    ours = ResponseCache()
    await ours.put(a_request(), a_record("x" * 1_000_000))
    ours.flush()
    assert files_in(folder)
    assert await ours.get(a_request(), as_it_is) == a_record("x" * 1_000_000)
    assert ours.stats()["bytes"] > 1_000_000
    assert ours.prune(max_bytes=1000) == 1
    assert not files_in(folder)
    assert await ours.get(a_request(), as_it_is) is None


def files_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*.val"))


class Evil:
    """What a stranger might leave in a shared folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", ["evil", "rubbish", "cut", "empty"])
async def test_a_foreign_or_damaged_entry_is_a_miss_runs_nothing_and_stays(
    content: str, folder: Path, tmp_path: Path
) -> None:
    """DSPy's restricted cache deletes such an entry; its ordinary one runs it."""
    ours = ResponseCache()
    dspy.cache.put(a_request(), a_record(), IGNORED_CACHE_KEYS)
    shard, row = row_of(folder, a_request())
    bad = {
        "evil": pickle.dumps(Evil(tmp_path / "owned")),
        "rubbish": b"\x00\xffnot a pickle",
        "cut": pickle.dumps(a_record())[:-5],
        "empty": b"",
    }[content]
    with sqlite3.connect(shard / "cache.db") as db:
        db.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (bad, row))
    db.close()
    assert await ours.get(a_request(), as_it_is) is None
    assert not (tmp_path / "owned").exists()
    assert row_of(folder, a_request()) == (shard, row)
    assert ours.stats()["misses"] == 1
    assert ours.stats()["entries"] == 1


@pytest.mark.parametrize(
    "name", ["os.mkdir", "Usage.__init__", "Any", "BaseModel", "litellm", "json", "validate_call", "Enum"]
)
def test_a_trusted_module_does_not_open_the_modules_that_it_imports(name: str, tmp_path: Path) -> None:
    where = "litellm.types.utils"
    code = (
        b"\x80\x04\x8c" + bytes([len(where)]) + where.encode() + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    )
    with pytest.raises(ForeignEntry):
        load(code)


class _Trap:
    """A module of a trusted name, with something else in it than data."""

    def __getattr__(self, name: str) -> Any:
        if name == "__spec__":  # what an import looks at
            raise AttributeError(name)
        raise AssertionError(f"{name} was looked up")

    class Plain:
        __module__ = "litellm.types.trap"

    class Stranger(dspy.Prediction):  # type: ignore[misc]
        pass


@pytest.mark.parametrize("name", ["Plain", "Stranger", "deep.Plain"])
def test_a_class_of_a_trusted_module_must_be_one_of_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = "litellm.types.trap"
    monkeypatch.setitem(sys.modules, where, _Trap())  # type: ignore[arg-type]
    code = (
        b"\x80\x04\x8c" + bytes([len(where)]) + where.encode() + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    )
    with pytest.raises(ForeignEntry, match="is no type"):
        load(code)


@pytest.mark.filterwarnings("ignore")  # of litellm's own import
def test_the_reply_types_of_the_sdks_are_known_and_only_those() -> None:
    from litellm.types.utils import Choices, Message, ModelResponse, Usage

    reply = ModelResponse(
        choices=[Choices(message=Message(content="hi"))], usage=Usage(prompt_tokens=1, completion_tokens=2)
    )
    assert load(pickle.dumps(reply)) == reply
    with pytest.raises(ForeignEntry, match="pathlib"):
        load(pickle.dumps(Path("/tmp")))
    assert load(pickle.dumps(Path("/tmp")), frozenset({(type(Path()).__module__, "PosixPath")})) == Path("/tmp")


async def test_types_that_the_user_called_safe_are_safe_here(tmp_path: Path) -> None:
    before = dspy.cache
    try:
        dspy.configure_cache(
            disk_cache_dir=str(tmp_path), enable_memory_cache=False, restrict_pickle=True, safe_types=[timedelta]
        )
        dspy.cache.put(a_request(), timedelta(1), IGNORED_CACHE_KEYS)
        dspy.cache.put(a_request(2), ConfigurationError("x"), IGNORED_CACHE_KEYS)
        ours = ResponseCache()
        assert await ours.get(a_request(), as_it_is) == timedelta(1)
        assert await ours.get(a_request(2), as_it_is) is None
    finally:
        dspy.cache.disk_cache.close()
        dspy.cache = before


async def test_an_entry_that_makes_no_reply_is_a_miss(folder: Path) -> None:
    ours = ResponseCache()
    dspy.cache.put(a_request(), "just a text", IGNORED_CACHE_KEYS)

    def fails(record: Any) -> Any:
        raise KeyError(record)

    assert await ours.get(a_request(), fails) is None
    assert ours.stats()["misses"] == 1


async def test_a_database_that_is_no_database_is_a_miss(folder: Path) -> None:
    dspy.cache.put(a_request(), a_record(), IGNORED_CACHE_KEYS)
    shard, _ = row_of(folder, a_request())
    dspy.cache.disk_cache.close()
    for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
        (shard / name).unlink(missing_ok=True)
    (shard / "cache.db").write_bytes(b"this is not SQLite" * 100)
    assert await ResponseCache().get(a_request(), as_it_is) is None
    with pytest.raises(OSError, match="can't be read"):
        ResponseCache().stats()


async def test_paths_in_the_database_do_not_lead_out_of_the_cache(folder: Path, tmp_path: Path) -> None:
    ours = ResponseCache()
    treasure = tmp_path / "treasure"
    treasure.write_bytes(pickle.dumps(a_record("secret")))
    dspy.cache.put(a_request(), a_record(), IGNORED_CACHE_KEYS)
    shard, row = row_of(folder, a_request())
    with sqlite3.connect(shard / "cache.db") as db:
        db.execute("UPDATE Cache SET value = NULL, filename = ? WHERE rowid = ?", ("../../treasure", row))
    db.close()
    assert await ours.get(a_request(), as_it_is) is None
    assert ours.prune(older_than=0) == 1
    assert treasure.exists()


async def test_the_size_limit_that_dspy_has_set_stays(tmp_path: Path) -> None:
    before = dspy.cache
    try:
        dspy.configure_cache(disk_cache_dir=str(tmp_path), disk_size_limit_bytes=16 * 12345, enable_memory_cache=False)
        ours = ResponseCache()
        await ours.put(a_request(), a_record())
        ours.stats()
        ours.prune(older_than=1000)
        with sqlite3.connect(tmp_path / "000" / "cache.db") as db:
            assert db.execute("SELECT value FROM Settings WHERE key = 'size_limit'").fetchone() == (12345,)
        db.close()
    finally:
        dspy.cache.disk_cache.close()
        dspy.cache = before


async def test_prune_by_age_then_by_size_the_oldest_first(folder: Path) -> None:
    ours = ResponseCache()
    now = time.time()
    for n in range(10):
        await ours.put(a_request(n), a_record("x" * 10_000))
        ours.flush()
        shard, row = row_of(folder, a_request(n))
        with sqlite3.connect(shard / "cache.db") as db:
            db.execute("UPDATE Cache SET store_time = ? WHERE rowid = ?", (now - 3600 * (10 - n), row))
        db.close()
    assert ours.prune(older_than=timedelta(hours=8, minutes=30)) == 2
    assert ours.prune(max_bytes=35_000) == 5
    left = [n for n in range(10) if await ours.get(a_request(n), as_it_is)]
    assert left == [7, 8, 9]
    assert len(dspy.cache.disk_cache) == 3
    assert ours.prune(max_bytes=35_000) == 0


@pytest.mark.parametrize("wrong", [{}, {"max_bytes": -1}, {"older_than": -0.5}, {"older_than": timedelta(-1)}])
def test_a_prune_that_makes_no_sense_is_refused(wrong: dict[str, Any], folder: Path) -> None:
    with pytest.raises(ConfigurationError):
        ResponseCache().prune(**wrong)


async def test_clear_empties_disk_and_memory(tmp_path: Path) -> None:
    before = dspy.cache
    try:
        dspy.configure_cache(disk_cache_dir=str(tmp_path))
        ours = ResponseCache()
        for n in range(3):
            await ours.put(a_request(n), a_record())
        assert ours.stats()["memory_entries"] == 3
        assert ours.clear() == 3
        assert [await ours.get(a_request(n), as_it_is) for n in range(3)] == [None] * 3
        assert ours.stats()["entries"] == ours.stats()["memory_entries"] == 0
    finally:
        dspy.cache.disk_cache.close()
        dspy.cache = before


async def test_a_cache_without_a_disk_lives_in_memory() -> None:
    before = dspy.cache
    try:
        dspy.configure_cache(enable_disk_cache=False)
        ours = ResponseCache()
        await ours.put(a_request(), a_record())
        assert await ours.get(a_request(), as_it_is) == a_record()
        assert (ours.stats()["store"], ours.stats()["entries"]) == ("memory", 1)
        assert ours.prune(max_bytes=0) == 0
        assert ours.clear() == 0
        assert await ours.get(a_request(), as_it_is) is None
    finally:
        dspy.cache = before


async def test_a_cache_of_the_users_own_is_used_as_it_is() -> None:
    class Own(dspy.clients.Cache):
        pass

    before = dspy.cache
    try:
        dspy.cache = Own(enable_disk_cache=False, enable_memory_cache=True, disk_cache_dir=None)
        ours = ResponseCache()
        await ours.put(a_request(), a_record())
        assert await ours.get(a_request(), as_it_is) == a_record()
        assert len(dspy.cache.memory_cache) == 1
    finally:
        dspy.cache = before


async def test_a_slow_disk_is_read_off_the_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from dspy_live.programs.cache import store as cache_store
    from dspy_live.programs.cache.disk_reader import DiskReader

    monkeypatch.setattr(cache_store, "SLOW_READ", -1.0)
    threads: list[int] = []
    monkeypatch.setattr(DiskReader, "get", lambda self, key: threads.append(threading.get_ident()))
    await ResponseCache().get(a_request(), as_it_is)
    assert threads
    assert threading.get_ident() not in threads


async def test_a_reply_is_there_for_the_next_call_before_it_is_on_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ResponseCache()
    release: list[Callable[[], None]] = []
    import threading

    gate = threading.Event()
    release.append(gate.set)
    disk = dspy.cache.disk_cache
    monkeypatch.setattr(disk, "set", lambda *_: gate.wait(30))
    await ours.put(a_request(), a_record())
    assert await ours.get(a_request(), as_it_is) == a_record()
    gate.set()
    ours.flush()


@pytest.mark.parametrize("now", ["no cache", "another disk"])
async def test_an_entry_that_waits_for_a_disk_is_no_hit_once_the_disk_is_out_of_use(
    now: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After configure_cache(enable_disk_cache=False, enable_memory_cache=False), replies that were still being written
    were answers."""
    import threading

    ours, gate, before = ResponseCache(), threading.Event(), dspy.cache
    monkeypatch.setattr(before.disk_cache, "set", lambda *_: gate.wait(30))
    await ours.put(a_request(), a_record())
    try:
        if now == "no cache":
            dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
        else:
            dspy.configure_cache(disk_cache_dir=str(tmp_path / "another"), enable_memory_cache=False)
        assert await ours.get(a_request(), as_it_is) is None
        dspy.cache = before
        before.reset_memory_cache()
        assert await ours.get(a_request(), as_it_is) == a_record(), "the disk that it waits for still has it"
    finally:
        if dspy.cache is not before and now == "another disk":
            dspy.cache.disk_cache.close()
        dspy.cache = before
        gate.set()
        ours.flush()


def test_entries_are_on_the_disk_when_the_process_has_ended(tmp_path: Path) -> None:
    code = f"""
import asyncio, dspy
from dspy_live.programs.cache.store import cache
async def main():
    for n in range(50):
        await cache.put({{"n": n}}, {json.dumps(a_record())})
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "DSPY_CACHEDIR": str(tmp_path)}, check=True)
    assert sum(_count(shard) for shard in tmp_path.glob("0*")) == 50


def test_a_forked_process_keeps_replies_too(tmp_path: Path) -> None:
    code = f"""
import asyncio, dspy, os, sys
from dspy_live.programs.cache.store import cache
asyncio.run(cache.put({{"n": 0}}, {json.dumps(a_record())}))
child = os.fork()
asyncio.run(cache.put({{"n": 1 + (child == 0)}}, {json.dumps(a_record())}))
cache.flush()
if child == 0:
    os._exit(len(cache._pending))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environ = {**os.environ, "DSPY_CACHEDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=50)
    assert sum(_count(shard) for shard in tmp_path.glob("0*")) == 3


def _count(shard: Path) -> int:
    db = sqlite3.connect(shard / "cache.db")
    try:
        return int(db.execute("SELECT COUNT(*) FROM Cache").fetchone()[0])
    finally:
        db.close()


def test_importing_us_does_not_swap_or_even_make_dspys_cache(tmp_path: Path) -> None:
    code = "import dspy, dspy_live.programs.cache.store; assert 'cache' not in vars(dspy)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "DSPY_CACHEDIR": str(tmp_path / "c")}, check=True)
    assert not (tmp_path / "c").exists()


class Dictionary:
    name = "a dictionary"

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}

    async def get(self, key: str) -> Any | None:
        return self.held.get(key)

    async def put(self, key: str, value: Any) -> None:
        self.held[key] = value

    def stats(self) -> StoreStats:
        return StoreStats(len(self.held), 100)

    def clear(self) -> int:
        count = len(self.held)
        self.held.clear()
        return count

    def prune(self, *, max_bytes: int | None = None, older_than: float | None = None) -> int:
        return 0


async def test_another_store_takes_the_place_of_the_disk(folder: Path) -> None:
    ours, store = ResponseCache(), Dictionary()
    ours.use(store)
    await ours.put(a_request(), a_record())
    assert list(store.held.values()) == [a_record()]
    assert await ours.get(a_request(), as_it_is) == a_record()
    store.held = {key: ["not", "a", "record"] for key in store.held}
    assert await ours.get(a_request(), as_it_is) is None
    assert ours.stats()["store"] == "a dictionary"
    assert ours.clear() == 1
    assert len(dspy.cache.disk_cache) == 0
    ours.use(None)
    assert await ours.get(a_request(), as_it_is) is None


async def test_the_environment_can_name_a_shared_store(
    folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSPY_LIVE_CACHE", redis_url)
    monkeypatch.setitem(RedisStore.__init__.__kwdefaults__, "timeout", 30.0)  # a slow one is no miss here
    ours = ResponseCache()
    await ours.put(a_request(), a_record())
    assert await ours.get(a_request(), as_it_is) == a_record()
    assert (ours.stats()["store"], ours.stats()["entries"], len(dspy.cache.disk_cache)) == (redis_url, 1, 0)
    store: Any = ours._store
    await store.aclose()
    chosen = ResponseCache()
    chosen.use(None)
    assert chosen.stats()["store"] == f"disk ({folder})"
