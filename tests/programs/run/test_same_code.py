"""Code as DSPy's tutorials have it, with either library behind it: only the import changes.

The patterns are those of the tutorials on async, streaming, tools and deployment; the code is ours.
"""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy.streaming import StatusMessage, StreamResponse
from tests.programs.conftest import Sim

import dspy_live

DSPY = SimpleNamespace(
    asyncify=dspy.asyncify,
    streamify=dspy.streamify,
    syncify=dspy.syncify,
    track_usage=dspy.track_usage,
    Parallel=dspy.Parallel,
    Tool=dspy.Tool,
    StreamListener=dspy.streaming.StreamListener,
    StatusMessageProvider=dspy.streaming.StatusMessageProvider,
    streaming_response=dspy.streaming.streaming_response,
)
LIBRARIES = pytest.mark.parametrize("lib", [DSPY, dspy_live], ids=["dspy", "dspy_live"])
pytestmark = pytest.mark.filterwarnings("ignore")


def lm_for(lib: Any, sim: Sim, **options: Any) -> Any:
    return sim.lm(**options) if lib is dspy_live else sim.plain(**options)


async def double(x: int) -> int:
    """Double a number."""
    await asyncio.sleep(0)
    return x * 2


def weather(city: str) -> str:
    """Say what the weather is."""
    return f"sunny in {city}"


@LIBRARIES
def test_an_async_tool_called_synchronously_where_the_setting_allows_it(lib: Any) -> None:
    with dspy.context(allow_tool_async_sync_conversion=True):
        assert lib.Tool(double)(x=5) == 10


@LIBRARIES
def test_a_tools_description(lib: Any) -> None:
    tool = lib.Tool(weather)
    assert (tool.name, tool.desc, tool.args) == ("weather", "Say what the weather is.", {"city": {"type": "string"}})
    assert "weather" in str(tool)
    assert asyncio.run(tool.acall(city="Oslo")) == "sunny in Oslo"


@LIBRARIES
def test_tool_calls_by_hand(lib: Any, sim: Sim) -> None:
    class Choose(dspy.Signature):  # type: ignore[misc]
        question: str = dspy.InputField()
        tools: list[dspy.Tool] = dspy.InputField()
        calls: dspy.ToolCalls = dspy.OutputField()

    tools = [lib.Tool(weather)]
    for native in (True, False):
        adapter = dspy.ChatAdapter(use_native_function_calling=native)
        with dspy.context(lm=lm_for(lib, sim), adapter=adapter):
            calls = dspy.Predict(Choose)(question="What is the weather in Oslo?", tools=tools).calls
        for call in calls.tool_calls:
            assert call.execute(functions=tools).startswith("sunny in")
            assert call.execute(functions={"weather": weather}).startswith("sunny in")


@LIBRARIES
def test_a_custom_async_module(lib: Any, sim: Sim) -> None:
    class Chain(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:  # without super().__init__(), as the tutorial has it
            self.one = dspy.ChainOfThought("question -> answer")
            self.two = dspy.ChainOfThought("answer -> simplified")

        async def aforward(self, question: str) -> Any:
            return await self.two.acall(answer=(await self.one.acall(question=question)).answer)

    async def main() -> Any:
        with dspy.context(lm=lm_for(lib, sim)):
            return await Chain().acall(question="Why?")

    assert asyncio.run(main()).simplified
    with dspy.context(lm=lm_for(lib, sim)):
        assert lib.syncify(Chain())(question="Why?").simplified


@LIBRARIES
def test_a_stream_of_one_predictor(lib: Any, sim: Sim) -> None:
    stream = lib.streamify(
        dspy.Predict("question->answer"), stream_listeners=[lib.StreamListener(signature_field_name="answer")]
    )

    async def main() -> tuple[list[Any], Any]:
        chunks, prediction = [], None
        with dspy.context(lm=lm_for(lib, sim)):
            async for chunk in stream(question="Why?"):
                if isinstance(chunk, StreamResponse):
                    chunks.append(chunk)
                elif isinstance(chunk, dspy.Prediction):
                    prediction = chunk
        return chunks, prediction

    chunks, prediction = asyncio.run(main())
    assert {(c.predict_name, c.signature_field_name) for c in chunks} == {("self", "answer")}
    assert "".join(c.chunk for c in chunks).strip() == prediction.answer


@LIBRARIES
def test_a_stream_of_an_agents_thoughts_with_status(lib: Any, sim: Sim) -> None:
    class Status(lib.StatusMessageProvider):  # type: ignore[misc,name-defined]
        def tool_start_status_message(self, instance: Any, inputs: Any) -> str:
            return f"calling {instance.name}"

        def lm_start_status_message(self, instance: Any, inputs: Any) -> str:
            return "asking the model"

    stream = lib.streamify(
        dspy.ReAct("question->answer", tools=[weather], max_iters=3),
        stream_listeners=[lib.StreamListener(signature_field_name="next_thought", allow_reuse=True)],
        status_message_provider=Status(),
    )

    async def main() -> list[Any]:
        with dspy.context(lm=lm_for(lib, sim)):
            return [chunk async for chunk in stream(question="What is the weather in Oslo?")]

    items = asyncio.run(main())
    messages = [i.message for i in items if isinstance(i, StatusMessage)]
    assert "calling weather" in messages
    assert "asking the model" in messages
    assert any(isinstance(i, StreamResponse) and i.signature_field_name == "next_thought" for i in items)
    assert isinstance(items[-1], dspy.Prediction)


@LIBRARIES
def test_a_synchronous_stream(lib: Any, sim: Sim) -> None:
    stream = lib.streamify(
        dspy.Predict("question->answer"),
        stream_listeners=[lib.StreamListener(signature_field_name="answer")],
        async_streaming=False,
    )
    with dspy.context(lm=lm_for(lib, sim)):
        items = list(stream(question="Why?"))
    assert isinstance(items[0], StreamResponse)
    assert isinstance(items[-1], dspy.Prediction)


@LIBRARIES
async def test_a_deployed_program(lib: Any, sim: Sim) -> None:
    """asyncify in one route; streamify of the same, and streaming_response, in another."""
    program = lib.asyncify(dspy.ChainOfThought("question -> answer"))
    stream = lib.streamify(program)
    with dspy.context(lm=lm_for(lib, sim), async_max_workers=4):
        whole = (await program(question="Why?")).toDict()
        lines = [line async for line in lib.streaming_response(stream(question="Why?"))]
    assert whole["answer"]
    assert lines[-1] == "data: [DONE]\n\n"
    assert json.loads(lines[-2][6:])["prediction"]["answer"] == whole["answer"]


@LIBRARIES
def test_pairs_in_parallel_and_their_order(lib: Any, sim: Sim) -> None:
    ask = dspy.Predict("question -> answer")
    questions = [f"What is {i}?" for i in range(4)]
    with dspy.context(lm=lm_for(lib, sim)):
        run = lib.Parallel(num_threads=2, disable_progress_bar=True)
        results = run([(ask, dspy.Example(question=q).with_inputs("question")) for q in questions])
        assert [r.answer for r in results] == [ask(question=q).answer for q in questions]


@LIBRARIES
def test_track_usage_counts_tokens(lib: Any, sim: Sim) -> None:
    with dspy.context(lm=lm_for(lib, sim)), lib.track_usage() as tracker:
        dspy.Predict("question -> answer")(question="Why?")
    (counts,) = tracker.get_total_tokens().values()
    assert counts["total_tokens"] > 0
