"""A user's own engine that is synchronous only: it can't be stopped, so its slot is held until it has ended."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Response, TextPart, Usage
from tests.support.leap import leap
from tests.support.until import async_until

from dspy_live import LM, Runtime, asyncify, streamify
from dspy_live.core.errors import DeadlineExceeded
from dspy_live.layers import Limit


class Slow:
    """Answers when it is let go, and counts how many of its calls are at work."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.active = self.most = self.calls = 0
        self.lock = threading.Lock()

    def complete(self, request: Any) -> Response:
        with self.lock:
            self.calls += 1
            self.active += 1
            self.most = max(self.most, self.active)
        self.release.wait(60)
        with self.lock:
            self.active -= 1
        text = "[[ ## answer ## ]]\nslowly\n\n[[ ## completed ## ]]"
        return Response(
            id=None,
            model="slow",
            message=Message.assistant([TextPart(text)]),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1, total_tokens=2),
        )


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_it_answers_and_streams(way: Any) -> None:
    engine = Slow()
    engine.release.set()
    with dspy.context(lm=LM("own/slow", engine=engine, cache=False)):
        assert (await asyncify(dspy.Predict("question -> answer"), execution=way)(question="q")).answer == "slowly"
        stream = streamify(dspy.Predict("question -> answer"), execution=way)
        items = [item async for item in stream(question="q")]
    assert "".join(item for item in items if isinstance(item, str)) == "slowly"


@pytest.mark.parametrize("where", ["program", "lm"])
@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_a_slot_is_held_until_its_call_has_ended(way: Any, where: str) -> None:
    engine, limit = Slow(), Limit(1)
    runtime = Runtime(layers=[limit]) if where == "program" else Runtime(lm_layers=[limit])
    with dspy.context(lm=LM("own/slow", engine=engine, cache=False)):
        ask = asyncify(dspy.Predict("question -> answer"), execution=way, runtime=runtime)
        tasks = [asyncio.create_task(ask(question=str(n))) for n in range(5)]
        await async_until(lambda: engine.active == 1)
        for task in tasks[:3]:
            task.cancel()
            await asyncio.sleep(0.05)
        assert engine.calls == 1, "the slot of the call that was left is not free before its engine is"
        engine.release.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(d, asyncio.CancelledError) for d in done] == [True, True, True, False, False]
    await async_until(lambda: limit.statistics().active == 0)
    assert (engine.most, engine.calls) == (1, 3)


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_a_waiting_caller_is_not_held_up(way: Any) -> None:
    engine = Slow()
    with dspy.context(lm=LM("own/slow", engine=engine, cache=False)):
        ask = asyncify(dspy.Predict("question -> answer"), execution=way, timeout=30)
        task = asyncio.create_task(ask(question="q"))
        await async_until(lambda: engine.active == 1)
        leap(30)
        with pytest.raises(DeadlineExceeded):
            await task
    assert engine.active == 1, "the caller has its answer, the engine is still at work"
    engine.release.set()
    await async_until(lambda: engine.active == 0)
    assert engine.calls == 1
