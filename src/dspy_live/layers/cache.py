"""Answers a call that was answered before from a store: whole runs of a program, or replies of any service.

An LM's own replies are cached by ``dspy_live.cache`` already; this caches the services around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar

import msgspec

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Partial, Predicted, Restart, Result, Started, TextDelta, Token
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.core.store import Store
from dspy_live.layers._same import same_question, who_answers
from dspy_live.runtime.stores.memory import MemoryStore

_FORMAT = "dspy-live-run-v2"


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
            kept = _read(await self.store.get(key), call.stream)
            if kept is not None:
                self._hits += 1
                said, result = kept
                await _play(call, sink, said, result)
                return result
            self._misses += 1
            recorder = _Recorder(sink)
            result = await service(call, recorder)
            await self.store.put(key, recorder.record(result, call.stream))
            return result

        return cached

    def _store_key(self, call: Call) -> str | None:
        key = self.key(call)
        if key is None:
            return None
        return sha256(msgspec.json.encode([*who_answers(call), key])).hexdigest()


class _Recorder:
    """A sink that hands all on and remembers for the playback the text or value of each LM call's fields."""

    __slots__ = ("_said", "_sink", "room")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._said: dict[tuple[int, str], dict[str, Any]] = {}
        self.room = sink.room

    def push(self, event: Event) -> bool:
        if isinstance(event, Token):
            self._place(event, event.field).setdefault("text", []).append(event.text)
        elif isinstance(event, TextDelta):
            self._place(event, "").setdefault("delta", []).append(event.text)
        elif isinstance(event, Partial):
            self._place(event, event.field)["value"] = event.value
        elif isinstance(event, Restart):
            lm_call, fields = event.lm_call, event.fields
            void = [at for at in self._said if at[0] == lm_call and (not fields or at[1] in fields)]
            for at in void:
                del self._said[at]
        return self._sink.push(event)

    def record(self, result: Result, streamed: bool) -> dict[str, Any]:
        """Return the entry for the store, as JSON-like values."""
        said = [{k: "".join(v) if k in ("text", "delta") else v for k, v in p.items()} for p in self._said.values()]
        kept = {"format": _FORMAT, "streamed": streamed, "said": said}
        if isinstance(result, Completion):
            return {**kept, "response": result.response}
        return {**kept, "outputs": result.outputs, "bare": result.bare}

    def _place(self, event: Token | Partial | TextDelta, field: str) -> dict[str, Any]:
        place = {"lm_call": event.lm_call, "predictor": event.predictor, "field": field}
        return self._said.setdefault((event.lm_call, field), place)


def _read(record: Any, stream: bool) -> tuple[list[Event], Result] | None:
    """Return the events and the result; ``None`` for an entry of another version, or of a stranger.

    A run that nobody streamed has said nothing: it answers calls that don't stream either.
    """
    if not isinstance(record, dict) or record.get("format") != _FORMAT or (stream and not record.get("streamed")):
        return None
    try:
        said = [_event(place) for place in record["said"]]
        if "response" in record:
            return said, Completion(record["response"])
        return said, Predicted(dict(record["outputs"]), bare=bool(record["bare"]))
    except (KeyError, TypeError, ValueError):
        return None


def _event(place: dict[str, Any]) -> Event:
    if "delta" in place:
        return TextDelta(place["delta"], place["lm_call"], place["predictor"])
    if "text" in place:
        return Token(place["text"], place["field"], place["predictor"], place["lm_call"], last=True)
    return Partial(place["value"], place["field"], place["predictor"], place["lm_call"], final=True)


async def _play(call: Call, sink: Sink, said: list[Event], result: Result) -> None:
    events: list[Event] = [Started(call.id, call.program)] if isinstance(result, Predicted) else []
    for event in events + said if call.stream else events:
        if not sink.push(event):
            await sink.room()
