"""The response cache: DSPy's own, read safely, or a shared store in its place; counted, cleared and pruned.

DSPy's object (``dspy.cache``) stays what it is and decides: where the user has switched a tier off or moved it, that
holds here. Its memory is used as it is; its disk is written through it and read past it, by
:class:`~dspy_live.programs.cache.disk_reader.DiskReader`.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypedDict, TypeVar

import dspy

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.store import Store
from dspy_live.programs.cache.disk_reader import DiskReader
from dspy_live.programs.cache.flights import Flights
from dspy_live.programs.cache.safe_pickle import Allowed
from dspy_live.programs.internals import CACHE_FORMAT, IGNORED_CACHE_KEYS
from dspy_live.runtime.forks import at_fork
from dspy_live.runtime.stores.redis import RedisStore

logger = logging.getLogger("dspy_live.cache")

T = TypeVar("T")

PLACE = "DSPY_LIVE_CACHE"
"""The environment's variable with the address of a shared store."""
SLOW_READ = 0.002
"""Seconds. A read from a warm disk takes some 20 µs, less than a change of threads; above this it gets a thread."""
MAX_PENDING = 1000
"""Writes that may wait for the disk; the next one makes its caller wait."""


FORK_PATIENCE = 5.0
"""Seconds that a fork waits for replies that are being written."""


class StoredReplies(TypedDict):
    """What :meth:`ResponseCache.stats` returns."""

    hits: int
    misses: int
    entries: int
    bytes: int
    memory_entries: int
    store: str


class ResponseCache:
    """Replies of LMs by request. ``dspy_live.cache`` is the process's own.

    Identical calls at once that don't stream share one request where replies are kept: the others wait for the first
    and find its reply here. ``dspy_live.cache.single_flight = False`` lets each ask for itself.
    """

    def __init__(self) -> None:
        self.single_flight = True
        self._flights = Flights()
        self._chosen: Store | None = None
        self._is_chosen = False
        self._hits = 0
        self._misses = 0
        self._read_time = 0.0
        self._reader: tuple[Any, DiskReader] | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._pending: dict[str, tuple[Any, Future[None], Any]] = {}
        self._lock = threading.Lock()
        at_fork(before=self._forks, in_child=self._forked)

    def use(self, store: Store | None) -> None:
        """Keep replies in ``store`` instead of on DSPy's disk; ``None`` goes back to it. DSPy's memory stays in front.

        Where nothing was chosen, ``DSPY_LIVE_CACHE`` may name a Redis or Valkey (``redis://host:port``).

        A store that several machines share never holds pickles: see
        :class:`~dspy_live.runtime.stores.redis.RedisStore`.
        """
        self._chosen, self._is_chosen = store, True

    @property
    def _store(self) -> Store | None:
        if not self._is_chosen:
            place = os.environ.get(PLACE)
            self.use(RedisStore(place) if place else None)
        return self._chosen

    def stats(self) -> StoredReplies:
        """Return ``hits`` and ``misses`` of this process, ``entries`` and ``bytes`` of the store, and more about it.

        ``memory_entries`` are held by this process, ``store`` says where the entries lie. Reads the whole index:
        a moment for 100,000 entries. Raises ``OSError`` when the store can't be reached.
        """
        self.flush()
        entries, size = 0, 0
        if self._store is not None:
            held = self._store.stats()
            entries, size = held.entries, held.bytes
        elif (reader := self._disk()) is not None:
            entries, size = reader.sizes()
        memory = len(dspy.cache.memory_cache) if _is_dspys(dspy.cache) else 0
        with self._lock:
            hits, misses = self._hits, self._misses
        return {
            "hits": hits,
            "misses": misses,
            "entries": entries if self._where() != "memory" else memory,
            "bytes": size,
            "memory_entries": memory,
            "store": self._where(),
        }

    def clear(self) -> int:
        """Remove every entry, of DSPy's memory too, and return how many the store held."""
        self.flush()
        if _is_dspys(dspy.cache):
            dspy.cache.reset_memory_cache()
        if self._store is not None:
            return self._store.clear()
        return int(dspy.cache.disk_cache.clear()) if self._disk() is not None else 0

    def prune(self, *, max_bytes: int | None = None, older_than: float | timedelta | None = None) -> int:
        """Remove what is older than ``older_than``, then the oldest until ``max_bytes`` are left at most.

        ``older_than`` is seconds, or a ``timedelta``. Returns how many entries were removed. This process's memory is
        emptied if anything was, since it may hold the same entries. Raises
        :class:`~dspy_live.core.errors.ConfigurationError` when neither is given or one is negative.
        """
        seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        if max_bytes is None and seconds is None:
            raise ConfigurationError("prune needs max_bytes, older_than or both; clear() removes everything")
        if (max_bytes is not None and not max_bytes >= 0) or (seconds is not None and not seconds >= 0):
            raise ConfigurationError(
                f"max_bytes and older_than must not be negative; got {max_bytes!r}, {older_than!r}"
            )
        self.flush()
        if self._store is not None:
            removed = self._store.prune(max_bytes=max_bytes, older_than=seconds)
        else:
            reader = self._disk()
            removed = reader.prune(max_bytes=max_bytes, older_than=seconds) if reader is not None else 0
        if removed and _is_dspys(dspy.cache):
            dspy.cache.reset_memory_cache()
        return removed

    async def get(self, request: dict[str, Any], load: Callable[[Any], T]) -> T | None:
        """Return what ``load`` makes of the record for a request, or ``None``. Never raises; counts a hit or a miss.

        A record that ``load`` fails on is a miss, and stays where it is.
        """
        loaded = None
        key = _key(request)
        if key is not None and (record := await self._find(key, request)) is not None:
            try:
                loaded = load(record)
            except Exception as exc:
                logger.debug("the cache entry %s is no reply and counts as a miss: %s", key, exc)
        with self._lock:
            if loaded is None:
                self._misses += 1
            else:
                self._hits += 1
        return loaded

    def turn(self, request: dict[str, Any]) -> AbstractAsyncContextManager[None]:
        """Return a context in which a request is looked up, asked and put; identical ones wait for the first.

        It waits for nobody with ``single_flight`` off, and where no reply would be found afterwards.
        """
        dspys = dspy.cache
        keeps = not _is_dspys(dspys) or dspys.enable_memory_cache or dspys.enable_disk_cache or self._store is not None
        key = _key(request) if self.single_flight and keeps else None
        return nullcontext() if key is None else self._flights.turn(key)

    async def put(self, request: dict[str, Any], record: dict[str, Any]) -> None:
        """Keep a record of plain data. The disk is written behind, in order, by a thread; :meth:`flush` waits."""
        key = _key(request)
        if key is None:
            return
        dspys = dspy.cache
        if not _is_dspys(dspys):
            await asyncio.to_thread(dspys.put, request, record, IGNORED_CACHE_KEYS)
            return
        if dspys.enable_memory_cache:
            with dspys._lock:
                dspys.memory_cache[key] = record
        if self._store is not None:
            await self._store.put(key, record)
        elif dspys.enable_disk_cache:
            future = self._write(dspys.disk_cache, key, record)
            if len(self._pending) > MAX_PENDING:
                await asyncio.wrap_future(future)

    def flush(self) -> None:
        """Wait until everything that was put is on the disk."""
        with self._lock:
            futures = [future for _, future, _ in self._pending.values()]
        for future in futures:
            future.exception()

    async def _find(self, key: str, request: dict[str, Any]) -> Any | None:
        dspys = dspy.cache
        if not _is_dspys(dspys):  # the user's own object: its rules, off the loop
            return await asyncio.to_thread(dspys.get, request, IGNORED_CACHE_KEYS)
        record = None
        if dspys.enable_memory_cache:
            with dspys._lock:
                record = dspys.memory_cache.get(key)
        if record is None:
            record = await self._fetch(key)
            if record is not None and dspys.enable_memory_cache:
                with dspys._lock:
                    dspys.memory_cache[key] = record
        # A reader of ours builds new objects from plain data; an SDK's object would be shared and changed.
        return record if _is_plain(record) else copy.deepcopy(record)

    async def _fetch(self, key: str) -> Any | None:
        if self._store is not None:
            record = await self._store.get(key)
            return record if _is_plain(record) else None
        reader = self._disk()
        if reader is None:
            return None
        # What waits for a disk is a part of that disk: after another was configured, or none, it is no hit.
        pending = self._pending.get(key)
        if pending is not None and pending[2] is dspy.cache.disk_cache:
            return pending[0]
        began = time.perf_counter()
        if self._read_time > SLOW_READ:
            record = await asyncio.to_thread(reader.get, key)
        else:
            record = reader.get(key)
        self._read_time += (time.perf_counter() - began - self._read_time) / 8
        return record

    def _disk(self) -> DiskReader | None:
        dspys = dspy.cache
        if not _is_dspys(dspys) or not dspys.enable_disk_cache:
            return None
        if self._reader is None or self._reader[0] is not dspys:
            shards = getattr(dspys.disk_cache, "_shards", ())
            allowed: Allowed = getattr(shards[0].disk, "_allowed", frozenset()) if shards else frozenset()
            self._reader = (dspys, DiskReader(str(dspys.disk_cache_dir), allowed))
        return self._reader[1]

    def _write(self, disk: Any, key: str, record: Any) -> Future[None]:
        def write() -> None:
            try:
                disk.set(key, record)
            except Exception as exc:
                logger.debug("the reply was not kept on the disk: %s", exc)
            with self._lock:
                if self._pending.get(key, (None,))[0] is record:
                    del self._pending[key]

        with self._lock:
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, "dspy-live-cache")
            future = self._writer.submit(write)
            self._pending[key] = (record, future, disk)
        return future

    def _forks(self) -> None:
        # A write that is under way holds locks inside SQLite, which nobody in the child would ever let go.
        with self._lock:
            futures = [future for _, future, _ in self._pending.values()]
        wait(futures, timeout=FORK_PATIENCE)

    def _forked(self) -> None:
        # The writing thread, and what waits for it, are the parent's.
        self._writer, self._pending, self._lock = None, {}, threading.Lock()

    def _where(self) -> str:
        if self._store is not None:
            return self._store.name
        if self._disk() is not None:
            return f"disk ({dspy.cache.disk_cache_dir})"
        return "memory"


def _is_dspys(cache: Any) -> bool:
    return type(cache) is dspy.clients.Cache


def _is_plain(record: Any) -> bool:
    return isinstance(record, dict) and record.get("_dspy_format") == CACHE_FORMAT


def _key(request: dict[str, Any]) -> str | None:
    try:
        return str(dspy.cache.cache_key(request, IGNORED_CACHE_KEYS))
    except Exception as exc:
        logger.debug("a request that can't be written as JSON is not cached: %s", exc)
        return None


cache = ResponseCache()
