"""The cache layer: a run that ended well is played back as a stream; nothing else is kept."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_live.core.call import Call
from dspy_live.core.events import (
    Completion,
    Event,
    Partial,
    Predicted,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
    Usage,
)
from dspy_live.core.service import fold
from dspy_live.layers.cache import Cache, answer_key
from dspy_live.runtime.stores.memory import MemoryStore
from dspy_live.testing import ScriptedService, StoreConformance, Wait, collect


def a_call(question: Any = "Why?", **more: Any) -> Call:
    return Call({"question": question}, **{"attributes": {"program": "Rag"}, **more})


RUN: list[Event] = [
    Started("r", "Rag"),
    Status("thinking"),
    Token("wrong", "answer", "a", 1),
    Restart("a", 1, "again"),
    Token("Be", "answer", "a", 1),
    Token("cause", "answer", "a", 1, last=True),
    Partial([1], "list", "a", 1),
    Partial([1, 2], "list", "a", 1, final=True),
    Usage("m", "a", 1, 10, 5, 15),
    Predicted({"answer": "Because", "list": [1, 2]}, value=object()),
]


async def test_a_run_is_played_back_as_a_stream_without_asking_again() -> None:
    inner, cache = ScriptedService(RUN), Cache()
    service = cache(inner)
    assert await collect(service, a_call()) == RUN
    call = a_call()
    assert await collect(service, call) == [
        Started(call.id, "Rag"),
        Token("Because", "answer", "a", 1, last=True),
        Partial([1, 2], "list", "a", 1, final=True),
        Predicted({"answer": "Because", "list": [1, 2]}),
    ]
    assert len(inner.openings) == 1
    assert (cache.statistics().hits, cache.statistics().misses) == (1, 1)


async def test_who_wants_no_tokens_gets_none() -> None:
    service = Cache()(ScriptedService(RUN))
    await collect(service, a_call())
    assert [type(e) for e in await collect(service, a_call(stream=False))] == [Started, Predicted]
    assert await fold(service, a_call()) == {"answer": "Because", "list": [1, 2]}


async def test_an_lms_reply_is_played_back_too() -> None:
    script: list[Event] = [TextDelta("Be"), TextDelta("cause"), Completion({"choices": []})]
    service = Cache()(ScriptedService(script, AssertionError("asked twice")))
    assert await collect(service, a_call()) == script
    assert await collect(service, a_call()) == [TextDelta("Because"), Completion({"choices": []})]


@pytest.mark.parametrize(
    "other",
    [
        a_call("Who?"),
        a_call(config={"rollout_id": 1}),
        a_call(config={"temperature": 1.0}),
        a_call(attributes={"program": "Qa"}),
    ],
)
async def test_another_question_option_or_program_is_another_run(other: Call) -> None:
    inner = ScriptedService(RUN)
    service = Cache()(inner)
    await collect(service, a_call())
    await collect(service, other)
    assert len(inner.openings) == 2


async def test_a_failure_is_not_kept() -> None:
    inner = ScriptedService([RUN[0], ValueError("no")], RUN)
    service = Cache()(inner)
    with pytest.raises(ValueError, match="no"):
        await collect(service, a_call())
    assert await collect(service, a_call()) == RUN


async def test_a_run_that_is_left_before_its_result_is_not_kept() -> None:
    inner = ScriptedService([*RUN[:5], Wait(3600), *RUN[5:]], RUN)
    service = Cache()(inner)
    async with service.open(a_call()) as events:
        await anext(aiter(events))
    assert await collect(service, a_call()) == RUN


async def test_inputs_that_are_no_json_go_through() -> None:
    inner, cache = ScriptedService(RUN), Cache()
    for _ in range(2):
        await collect(cache(inner), a_call(object()))
    assert len(inner.openings) == 2
    assert cache.statistics().uncached == 2
    assert answer_key(a_call(object())) is None


@pytest.mark.parametrize(
    "rubbish", [None, "text", {}, {"format": "dspy-live-run-v1"}, {"format": "other", "outputs": {}}]
)
async def test_what_somebody_else_left_in_the_store_is_a_miss(rubbish: Any) -> None:
    store = MemoryStore()
    key = answer_key(a_call())
    assert key is not None
    await store.put(key, rubbish)
    assert await collect(Cache(store)(ScriptedService(RUN)), a_call()) == RUN


async def test_outputs_that_no_store_can_hold_are_given_and_not_kept() -> None:
    value = object()
    inner = ScriptedService([RUN[0], Predicted({"answer": value})])
    service = Cache()(inner)
    for _ in range(2):
        assert (await collect(service, a_call()))[-1] == Predicted({"answer": value})
    assert len(inner.openings) == 2


class TestMemoryStore(StoreConformance):
    def make_store(self) -> MemoryStore:
        return MemoryStore()


async def test_memory_is_bounded_and_what_was_used_longest_ago_goes_first() -> None:
    store = MemoryStore(max_bytes=1000)
    for n in range(3):
        await store.put(f"k{n}", "x" * 298)
    await store.get("k0")
    await store.put("k3", "x" * 298)
    assert [await store.get(f"k{n}") is not None for n in range(4)] == [True, False, True, True]
    await store.put("k0", "x" * 5000)
    assert await store.get("k0") is None, "a value too large takes the place of the older one, and is not kept"
    assert store.stats().bytes == 600


async def test_entries_end_after_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    store = MemoryStore(ttl=10)
    await store.put("k", 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 9)
    assert await store.get("k") == 1
    monkeypatch.setattr(time, "time", lambda: now + 11)
    assert await store.get("k") is None
    assert store.stats().entries == 0
