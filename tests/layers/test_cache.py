"""The cache layer: a run that ended well is played back as a stream; nothing else is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import UNSET

from dspy_live.core.call import Call
from dspy_live.core.events import (
    Completion,
    Partial,
    Predicted,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
    Usage,
)
from dspy_live.core.sink import Sink
from dspy_live.layers.cache import Cache
from dspy_live.runtime.channel import read
from dspy_live.runtime.stores.memory import MemoryStore
from dspy_live.testing import Recorder, ScriptedService, StoreConformance, Wait, collect, virtual_time


def a_call(question: Any = "Why?", **more: Any) -> Call:
    return Call({"question": question}, **{"program": "Rag", **more})


RUN: list[Any] = [
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
    assert len(inner.attempts) == 1
    assert (cache.statistics().hits, cache.statistics().misses) == (1, 1)


async def test_a_hit_pushes_no_tokens_to_a_call_without_a_stream() -> None:
    service = Cache()(ScriptedService(RUN))
    await collect(service, a_call())
    assert [type(e) for e in await collect(service, a_call(stream=False))] == [Started, Predicted]


async def test_a_cached_run_without_a_stream_answers_no_streaming_call() -> None:
    """It has said nothing, and its playback would be a stream without a token."""
    inner = ScriptedService([RUN[0], RUN[-1]], RUN)
    service = Cache()(inner)
    for _ in range(2):
        assert (await collect(service, a_call(stream=False)))[-1].outputs == RUN[-1].outputs
    assert len(inner.attempts) == 1
    assert await collect(service, a_call()) == RUN
    for stream, count in ((True, 4), (False, 2)):
        assert len(await collect(service, a_call(stream=stream))) == count
    assert len(inner.attempts) == 2


async def test_an_lms_reply_is_played_back_too() -> None:
    script: list[Any] = [TextDelta("Be"), TextDelta("cause"), Completion({"choices": []})]
    service = Cache()(ScriptedService(script, AssertionError("asked twice")))
    assert await collect(service, a_call()) == script
    assert await collect(service, a_call()) == [TextDelta("Because"), Completion({"choices": []})]


@pytest.mark.parametrize(
    "other",
    [
        a_call("Who?"),
        a_call(config={"rollout_id": 1}),
        a_call(config={"temperature": 1.0}),
        a_call(args=("Why?",)),
        a_call(program="Qa"),
        a_call(version="of other instructions"),
        a_call(model="other/model"),
    ],
)
async def test_another_question_option_program_version_or_lm_is_another_run(other: Call) -> None:
    inner = ScriptedService(RUN)
    service = Cache()(inner)
    await collect(service, a_call())
    await collect(service, other)
    assert len(inner.attempts) == 2


async def test_a_failure_is_not_kept() -> None:
    inner = ScriptedService([RUN[0], ValueError("no")], RUN)
    service = Cache()(inner)
    with pytest.raises(ValueError, match="no"):
        await collect(service, a_call())
    assert await collect(service, a_call()) == RUN


async def test_a_run_that_is_left_before_its_result_is_not_kept() -> None:
    inner = ScriptedService([*RUN[:5], Wait(3600), *RUN[5:]], RUN)
    service = Cache()(inner)
    async with read(service, a_call()) as reader:
        await anext(reader)
    assert await collect(service, a_call()) == RUN


async def test_inputs_that_are_no_json_go_through() -> None:
    inner, cache = ScriptedService(RUN), Cache()
    for _ in range(2):
        await collect(cache(inner), a_call(object()))
    assert len(inner.attempts) == 2
    assert cache.statistics().uncached == 2


@pytest.mark.parametrize(
    "rubbish",
    [None, "text", {}, {"format": "dspy-live-run-v1"}, {"format": "dspy-live-run-v2"}, {"format": "x", "outputs": {}}],
)
async def test_an_entry_in_another_format_is_a_miss(rubbish: Any) -> None:
    class Strange(MemoryStore):
        async def get(self, key: str) -> Any:
            return rubbish

    assert await collect(Cache(Strange())(ScriptedService(RUN)), a_call()) == RUN


async def test_two_programs_with_one_cache_never_share_an_answer() -> None:
    """Two programs behind one runtime got each other's answers, as their names were known further inside only."""
    cache = Cache(key=lambda call: call.inputs["question"])
    cat, dog = (ScriptedService([Predicted({"answer": name})]) for name in ("cat", "dog"))
    for _ in range(2):
        for program, inner, name in (("Cat", cat, "cat"), ("Dog", dog, "dog")):
            assert (await collect(cache(inner), a_call(program=program)))[-1] == Predicted({"answer": name})
    assert (len(cat.attempts), len(dog.attempts)) == (1, 1)


async def test_calls_with_other_positional_arguments_never_share_an_answer() -> None:
    async def echo(call: Call, sink: Sink) -> Predicted:
        return Predicted({"answer": call.args[0]})

    service = Cache()(echo)
    for _ in range(2):
        for argument in ("a", "b"):
            assert (await collect(service, Call(args=(argument,), program="Rag")))[-1] == Predicted(
                {"answer": argument}
            )


async def test_the_result_of_a_hit_carries_the_outputs_and_no_object() -> None:
    """A cached run answered ``None``: the object was not kept, and its absence looked like the object."""
    service = Cache()(ScriptedService([Predicted({"output": 42}, value=42, bare=True)]))
    first, hit = [(await collect(service, a_call()))[-1] for _ in range(2)]
    assert first.value == 42
    assert hit.value is UNSET
    assert (hit.outputs, hit.bare) == ({"output": 42}, True)


@virtual_time
async def test_a_playback_waits_where_the_caller_has_no_room() -> None:
    service = Cache()(ScriptedService(RUN))
    await collect(service, a_call())
    sink = Recorder(bound=1)
    task = asyncio.create_task(service(a_call(), sink))
    for played in (1, 2, 3):
        await asyncio.sleep(1)
        assert len(sink.events) == played
        assert not task.done()
        sink.drain()
    assert await task == Predicted({"answer": "Because", "list": [1, 2]})


async def test_outputs_that_no_store_can_hold_are_given_and_not_kept() -> None:
    value = object()
    inner = ScriptedService([RUN[0], Predicted({"answer": value})])
    service = Cache()(inner)
    for _ in range(2):
        assert (await collect(service, a_call()))[-1] == Predicted({"answer": value})
    assert len(inner.attempts) == 2


class TestMemoryStore(StoreConformance):
    def make_store(self) -> MemoryStore:
        return MemoryStore()


async def test_memory_is_bounded_and_the_least_recently_used_entry_goes_first() -> None:
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
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    await store.put("k", 1)
    monkeypatch.setattr(time, "time", lambda: now + 9)
    assert await store.get("k") == 1
    monkeypatch.setattr(time, "time", lambda: now + 11)
    assert await store.get("k") is None
    assert store.stats().entries == 0
