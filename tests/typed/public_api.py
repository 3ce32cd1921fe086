"""What a type checker makes of the public names; ``make types`` reads it, nothing runs it.

An ``ignore`` that is not needed is an error, so that each line with one says: this use is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, assert_type

import dspy_live
from dspy_live.client import AsyncClient, Client, Reply
from dspy_live.core.call import Buffer, Call
from dspy_live.core.events import Event, Result, Token
from dspy_live.core.service import Layer, Service, compose
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers import Limit
from dspy_live.layers.budget import BudgetStatistics
from dspy_live.programs.api.streamify import AsyncStreamer, SyncStreamer
from dspy_live.runtime.channel import read


async def in_python(program: Any) -> None:
    ask = dspy_live.asyncify(program, execution="inline", timeout=1.5)
    await ask(question="x")
    assert_type(ask.layers, list[Layer])
    dspy_live.asyncify(program, execution="sometimes")  # type: ignore[call-overload]
    dspy_live.asyncify(program, timeout="1 s")  # type: ignore[call-overload]
    async with contextlib.aclosing(dspy_live.stream_batch(program, iter([{"question": "x"}]))) as items:
        async for item in items:
            assert_type(item, dspy_live.BatchItem)
    with dspy_live.UsageTracker() as tracker:
        assert_type(tracker, dspy_live.UsageTracker)
        assert_type(tracker.get_stats()["total_cost"], float)
        assert_type(tracker.get_stats()["by_program"]["Rag"]["by_predictor"]["ask"]["api_calls"], int)
        tracker.get_stats()["total_costs"]  # type: ignore[typeddict-item]
    assert_type(dspy_live.cache.stats()["hits"], int)
    assert_type(dspy_live.Budget(max_cost=1).statistics(), BudgetStatistics)
    dspy_live.Budget(max_cost="a lot")  # type: ignore[arg-type]
    dspy_live.emit("progress", {"done": 3})
    dspy_live.set_default_runtime(dspy_live.Runtime(max_threads=8))
    dspy_live.Runtime(threads=8)  # type: ignore[call-arg]


def shout(text: str) -> bytes:
    return text.upper().encode()


async def shout_slowly(text: str) -> bytes:
    return text.upper().encode()


async def results_have_the_types_of_the_program() -> None:
    assert_type(await dspy_live.asyncify(shout)("x"), bytes)
    assert_type(await dspy_live.asyncify(shout_slowly)(text="x", config={"temperature": 0.5}), bytes)


async def batches_have_the_types_of_the_program(rows: list[dict[str, str]]) -> None:
    assert_type(dspy_live.batch(shout, rows, concurrency=3), list[bytes | dspy_live.BatchError])
    assert_type(dspy_live.batch(shout, rows, on_error="raise", checkpoint="done.jsonl"), list[bytes])
    assert_type(await dspy_live.abatch(shout_slowly, rows, timeout=3), list[bytes | dspy_live.BatchError])
    assert_type(await dspy_live.abatch(shout_slowly, rows, on_error="raise"), list[bytes])
    dspy_live.batch(shout, rows, concurency=3)  # type: ignore[call-overload]
    dspy_live.batch(shout, rows, concurrency="3")  # type: ignore[call-overload]


async def streams(program: Any, asynchronous: bool) -> None:
    streamer = dspy_live.streamify(shout, stream_listeners=[dspy_live.StreamListener("answer")], buffer=8)
    async with contextlib.aclosing(streamer(text="x")) as stream:
        async for item in stream:
            assert_type(item, dspy_live.StreamItem | bytes)
            if isinstance(item, dspy_live.StreamToken):
                assert_type(item.predict_name, str)
            elif isinstance(item, dspy_live.PartialValue):
                assert_type(item.lm_call, int)
    async for slow in dspy_live.streamify(shout_slowly)("x"):
        assert_type(slow, dspy_live.StreamItem | bytes)
    for plain in dspy_live.streamify(shout, async_streaming=False, events=True)(text="x"):
        assert_type(plain, dspy_live.StreamItem | bytes)
    for plain in dspy_live.streamify(shout_slowly, async_streaming=False)(text="x"):
        assert_type(plain, dspy_live.StreamItem | bytes)
    async for untyped in dspy_live.streamify(program)(question="x"):
        assert_type(untyped, dspy_live.StreamItem | Any)
    assert_type(dspy_live.streamify(shout, async_streaming=asynchronous), AsyncStreamer[Any] | SyncStreamer[Any])
    for _ in streamer("x"):  # type: ignore[attr-defined]
        pass
    await streamer("x")  # type: ignore[misc]
    dspy_live.streamify(shout, buffer="8")  # type: ignore[call-overload]
    dspy_live.streamify(shout, bufer=8)  # type: ignore[call-overload]


def tokens(item: dspy_live.StreamToken, void: dspy_live.Restart) -> None:
    assert_type(item.upper(), str)
    assert_type(item.signature_field_name, str)
    assert_type(void.fields, tuple[str, ...])


async def over_http() -> None:
    client = AsyncClient("http://127.0.0.1:8000", api_key="k")
    assert_type(await client.predict(question="x"), Reply)
    async with client.stream(question="x") as run:
        assert_type(run.text("answer"), AsyncIterator[str])
        assert_type(await run.result(), Reply)
        async for event in run:
            assert_type(event, Event)
    assert_type(Client("http://127.0.0.1:8000").predict({"question": "x"}, timeout=3), Reply)
    AsyncClient()  # type: ignore[call-arg]


async def layers(inner: Service) -> None:
    service: Service = compose(inner, [unstreamed, Limit(3)])
    assert_type(await service(Call({"question": "x"}), DISCARD), Result)
    async with read(service, Call({"question": "x"}), Buffer(size=8)) as reader:
        async for event in reader:
            assert_type(event, Event)
            if isinstance(event, Token):
                assert_type(event.text, str)
        assert_type(reader.result, Result)
    dspy_live.asyncify(inner, layers=[unstreamed])
    dspy_live.Runtime(layers=["retry"])  # type: ignore[list-item]


def unstreamed(service: Service) -> Service:
    """A layer of a user's own is a function around a function."""

    async def run(call: Call, sink: Sink) -> Result:
        return await service(call.but(stream=False), sink)

    return run
