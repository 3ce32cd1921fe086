"""Answers a call that was answered before from a store: whole runs of a program, or replies of any service.

An LM's own replies are cached by ``dspy_live.cache`` already; this is for what is around them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar

import msgspec

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Partial, Predicted, Restart, Started, TextDelta, Token
from dspy_live.core.service import Receiver, Service
from dspy_live.core.store import Store
from dspy_live.layers._relay import Relay
from dspy_live.layers._wrap import Wrapped
from dspy_live.runtime.stores.memory import MemoryStore

_FORMAT = "dspy-live-run-v1"


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Calls answered from the store, calls that were not, and calls without a key."""

    hits: int
    misses: int
    uncached: int


class Cache:
    """Keeps the result of each run that ended well, and what it said of each field; plays it back as a stream.

    A run is played back as ``Started``, one token per text field, the last value of each typed field, ``Predicted``;
    its LM calls, tools and status lines do not come again. ``Predicted.value`` is not kept: who wants the program's
    own object gets its outputs as a dict.

    Args:
        store: where; a :class:`~dspy_live.runtime.stores.memory.MemoryStore` of this layer's own by default.
        key: what makes two calls the same, :func:`answer_key` by default; ``None`` from it lets the call through.
    """

    kind: ClassVar[str] = "cache"

    def __init__(self, store: Store | None = None, *, key: Callable[[Call], str | None] | None = None) -> None:
        self.store: Store = store if store is not None else MemoryStore()
        self.key = key if key is not None else answer_key
        self._hits = self._misses = self._uncached = 0

    def __call__(self, service: Service) -> Service:
        return Wrapped(self, service)

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses, self._uncached)

    @asynccontextmanager
    async def _open(self, inner: Service, call: Call) -> AsyncIterator[Receiver[Event]]:
        key = self.key(call)
        if key is None:
            self._uncached += 1
            async with inner.open(call) as events:
                yield events
            return
        kept = _events_of(await self.store.get(key), call)
        if kept is not None:
            self._hits += 1
            yield _Replay(kept)
            return
        self._misses += 1
        async with inner.open(call) as events:
            listener = _Listener(events)
            yield listener
        if (record := listener.record()) is not None:
            await self.store.put(key, record)


def answer_key(call: Call) -> str | None:
    """The program's or model's name, the inputs and the options (``rollout_id`` among them); ``None`` if no JSON."""
    whose = (call.attributes.get("program"), call.attributes.get("model"))
    try:
        content = msgspec.json.encode([whose, call.inputs, call.config], order="deterministic")
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None
    return sha256(content).hexdigest()


class _Listener(Relay):
    """Passes everything on and remembers what a playback needs."""

    def __init__(self, inner: Receiver[Event]) -> None:
        super().__init__()  # without the short way: there the words do not pass here
        self._events = inner
        self._said: dict[tuple[int, str], dict[str, Any]] = {}
        self._result: dict[str, Any] | None = None

    async def _next_batch(self) -> list[Event]:
        events = await self._events.receive_many()
        for event in events:
            self._see(event)
        return events

    def record(self) -> dict[str, Any] | None:
        """What is to be kept; nothing for a run that failed or was left before its result."""
        if self._result is None:
            return None
        said = [{k: "".join(v) if k in ("text", "delta") else v for k, v in p.items()} for p in self._said.values()]
        return {"format": _FORMAT, "said": said, **self._result}

    def _see(self, event: Event) -> None:
        if isinstance(event, Token):
            self._place(event).setdefault("text", []).append(event.text)
        elif isinstance(event, Partial):
            self._place(event)["value"] = event.value
        elif isinstance(event, TextDelta):
            place = self._said.setdefault((event.lm_call, ""), {"lm_call": event.lm_call, "predictor": event.predictor})
            place.setdefault("delta", []).append(event.text)
        elif isinstance(event, Restart):
            for at in [
                at for at in self._said if at[0] == event.lm_call and (not event.fields or at[1] in event.fields)
            ]:
                del self._said[at]
        elif isinstance(event, Predicted):
            self._result = {"outputs": event.outputs}
        elif isinstance(event, Completion):
            self._result = {"response": event.response}

    def _place(self, event: Token | Partial) -> dict[str, Any]:
        place = {"lm_call": event.lm_call, "predictor": event.predictor, "field": event.field}
        return self._said.setdefault((event.lm_call, event.field), place)


def _events_of(record: Any, call: Call) -> list[Event] | None:
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        return None
    try:
        said = [_event(place) for place in record["said"]] if call.stream else []
        if "response" in record:
            return [*said, Completion(record["response"])]
        return [Started(call.id, str(call.attributes.get("program", ""))), *said, Predicted(dict(record["outputs"]))]
    except (KeyError, TypeError, ValueError):
        return None  # another version's, or a stranger's: a miss


def _event(place: dict[str, Any]) -> Event:
    if "delta" in place:
        return TextDelta(place["delta"], place["lm_call"], place["predictor"])
    if "text" in place:
        return Token(place["text"], place["field"], place["predictor"], place["lm_call"], last=True)
    return Partial(place["value"], place["field"], place["predictor"], place["lm_call"], final=True)


class _Replay(Relay):
    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self._ready.extend(events)

    async def _next_batch(self) -> list[Event]:
        return []
