"""Answers a call that was answered before from a store: whole runs of a program, or replies of any service.

An LM's own replies are cached by ``dspy_live.cache`` already; this caches the services around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.events import Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.core.store import Store
from dspy_live.layers._playback import Recorder, play, read
from dspy_live.layers._same import name_of, same_question
from dspy_live.runtime.stores.memory import MemoryStore


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Calls answered from the store, calls that were not, and calls without a key."""

    hits: int
    misses: int
    uncached: int


class Cache:
    """Keeps the result of each run that ended well, and the text of each field; plays them back as a stream.

    A run is played back as ``Started``, one token per text field and the last value of each typed field; its LM calls,
    tools and status lines do not come again. A call without ``stream`` gets ``Started`` and the result. The program's
    own object is not kept: ``Predicted.value`` of a hit is ``UNSET``.

    Args:
        store: keeps the answers; a :class:`~dspy_live.runtime.stores.memory.MemoryStore` of its own by default.
        key: two calls of one program, of one version and with one LM are the same when their keys are: inputs,
            arguments and options by default. ``None`` from it lets the call through.
    """

    kind: ClassVar[str] = "cache"

    def __init__(self, store: Store | None = None, *, key: Callable[[Call], str | None] = same_question) -> None:
        self.store: Store = store if store is not None else MemoryStore()
        self.key = key
        self._hits = self._misses = self._uncached = 0

    def __repr__(self) -> str:
        return f"Cache({self.store.name})"

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses, self._uncached)

    def __call__(self, service: Service) -> Service:
        async def cached(call: Call, sink: Sink) -> Result:
            key = self._store_key(call)
            if key is None:
                self._uncached += 1
                return await service(call, sink)
            kept = read(await self.store.get(key), call.stream)
            if kept is not None:
                self._hits += 1
                said, result = kept
                await play(call, sink, said, result)
                return result
            self._misses += 1
            recorder = Recorder(sink)
            result = await service(call, recorder)
            await self.store.put(key, recorder.record(result, call.stream))
            return result

        return cached

    def _store_key(self, call: Call) -> str | None:
        key = self.key(call)
        return None if key is None else name_of(call, key)
