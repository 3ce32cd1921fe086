"""The simulated LM as a Service: its text goes into a sink, and it waits when the sink is full."""

from __future__ import annotations

import asyncio
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, TextDelta
from dspy_live.core.sink import DISCARD
from dspy_live.simulator import InProcessLM
from dspy_live.simulator.endpoint import SimulatedEndpoint
from dspy_live.testing.scripted import Recorder

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


def message(completion: Completion, choice: int = 0) -> Any:
    return completion.response["choices"][choice]["message"]


async def test_the_pushed_text_is_the_completion_s() -> None:
    recorder = Recorder()
    completion = await SimulatedEndpoint()(Call(REQUEST), recorder)
    texts = [event.text for event in recorder.events if isinstance(event, TextDelta)]
    assert len(texts) > 5
    assert "".join(texts) == message(completion)["content"]


async def test_nothing_is_pushed_without_a_stream() -> None:
    recorder = Recorder()
    completion = await SimulatedEndpoint()(Call(REQUEST, stream=False), recorder)
    assert recorder.events == []
    assert message(completion)["content"]


async def test_other_completions_are_told_as_work_without_text() -> None:
    recorder = Recorder()
    completion = await SimulatedEndpoint()(Call({**REQUEST, "n": 2}), recorder)
    texts = [event.text for event in recorder.events if isinstance(event, TextDelta)]
    assert "".join(texts) == message(completion)["content"]
    assert "" in texts
    assert message(completion, 1)["content"]


async def test_a_full_sink_holds_the_reply_back() -> None:
    recorder = Recorder(bound=3)
    task = asyncio.create_task(SimulatedEndpoint(InProcessLM(length=50))(Call(REQUEST), recorder))
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(recorder.events) == 3
    assert not task.done()
    while not task.done():
        recorder.drain()
        await asyncio.sleep(0)
    assert "".join(event.text for event in recorder.events) == message(task.result())["content"]  # type: ignore[union-attr]


async def test_the_result_is_the_same_with_and_without_a_listener() -> None:
    listened = await SimulatedEndpoint()(Call(REQUEST), Recorder())
    assert message(await SimulatedEndpoint()(Call(REQUEST), DISCARD)) == message(listened)
