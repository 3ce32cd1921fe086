"""Native reasoning and native tool calls: what the model says beside its text."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from tests.programs.conftest import Sim

from dspy_live import streamify
from dspy_live.core.events import Reasoning, Restart, Tool
from dspy_live.simulator import Faults

WAYS = ("native", "thread", "inline")


class Think(dspy.Signature):  # type: ignore[misc]
    question: str = dspy.InputField()
    thoughts: dspy.Reasoning = dspy.OutputField()
    answer: str = dspy.OutputField()


def text_of(items: list[Any], field: str) -> str:
    text = ""
    for item in items:
        if isinstance(item, Restart) and (not item.fields or field in item.fields):
            text = ""
        elif isinstance(item, str) and item.signature_field_name == field:  # type: ignore[attr-defined]
            text += item
    return text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", ["auto", "never"])
async def test_a_reasoning_field_streams_from_the_reasoning_channel(sim: Sim, way: Any, stream: Any) -> None:
    sim.server.set_options(reasoning=12)
    lm = sim.lm(capabilities=["reasoning"], stream=stream)
    with dspy.context(lm=lm):
        items = [i async for i in streamify(dspy.Predict(Think), execution=way, events=True)(question="What?")]
    prediction = items[-1]
    assert text_of(items, "thoughts") == prediction.thoughts.content != ""
    assert text_of(items, "answer") == prediction.answer
    assert "".join(i.text for i in items if isinstance(i, Reasoning)) == prediction.thoughts.content
    last = [i for i in items if isinstance(i, str) and i.signature_field_name == "thoughts"][-1]  # type: ignore[attr-defined]
    assert last.is_last_chunk  # type: ignore[attr-defined]


async def test_a_retry_takes_the_reasoning_back(sim: Sim) -> None:
    sim.server.set_options(reasoning=12)
    sim.server.next(fault="cut", after=4, reasoning=12)
    lm = sim.lm(capabilities=["reasoning"], num_retries=1)
    with dspy.context(lm=lm):
        items = [i async for i in streamify(dspy.Predict(Think))(question="What?")]
    assert any(isinstance(i, Restart) for i in items)
    assert text_of(items, "thoughts") == items[-1].thoughts.content


async def test_a_cached_answer_streams_its_reasoning(sim: Sim) -> None:
    sim.server.set_options(reasoning=12)
    stream = streamify(dspy.Predict(Think))
    with dspy.context(lm=sim.lm(capabilities=["reasoning"], cache=True)):
        first = [i async for i in stream(question="What was thought before?")]
        second = [i async for i in stream(question="What was thought before?")]
    assert sim.server.stats.requests == 1
    assert text_of(second, "thoughts") == text_of(first, "thoughts") == second[-1].thoughts.content


async def test_a_reasoning_field_of_a_model_without_reasoning_is_a_field(sim: Sim) -> None:
    with dspy.context(lm=sim.lm("openai/own-model")):
        items = [i async for i in streamify(dspy.Predict(Think))(question="What?")]
    assert text_of(items, "thoughts") == items[-1].thoughts.content != ""


async def test_the_fallback_to_json_keeps_native_reasoning(sim: Sim) -> None:
    sim.server.set_options(reasoning=8)
    sim.server.set_faults(Faults(schedule=("wrong_format",)))
    with dspy.context(lm=sim.lm(capabilities=["reasoning"])):
        items = [i async for i in streamify(dspy.Predict(Think))(question="What?")]
    assert text_of(items, "thoughts") == items[-1].thoughts.content
    assert text_of(items, "answer") == items[-1].answer


def look_up(term: str) -> str:
    """Look a term up."""
    return f"{term} is a thing"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("kind", ["ReAct", "ReActV2"])
async def test_agents_in_both_ways_of_calling_tools(sim: Sim, way: Any, native: bool, kind: str) -> None:
    lm = sim.lm(capabilities=["function_calling"])
    agent = getattr(dspy, kind)("question -> answer", tools=[look_up], max_iters=3)
    adapter = dspy.ChatAdapter(use_native_function_calling=native)
    with dspy.context(lm=lm, adapter=adapter):
        items = [i async for i in streamify(agent, execution=way, events=True)(question="What is Rust?")]
    prediction = items[-1]
    tools = [i for i in items if isinstance(i, Tool)]
    called = [t for t in tools if t.stage == "call"]
    assert {t.name for t in called} >= {"look_up"}
    assert {t.id for t in called} == {t.id for t in tools if t.stage in ("result", "error")}
    tokens = [i for i in items if isinstance(i, str)]
    assert all(t.predict_name and t.lm_call for t in tokens)  # type: ignore[attr-defined]
    by_call: dict[Any, str] = {}
    for item in items:
        if isinstance(item, Restart):
            by_call = {k: v for k, v in by_call.items() if k[0] != item.lm_call}
        elif isinstance(item, str):
            key = (item.lm_call, item.predict_name, item.signature_field_name)  # type: ignore[attr-defined]
            by_call[key] = by_call.get(key, "") + item
    if kind == "ReAct":
        assert [v for k, v in by_call.items() if k[2] == "answer"] == [prediction.answer]
        assert [v for k, v in by_call.items() if k[2] == "next_thought"] == [
            v for k, v in prediction.trajectory.items() if k.startswith("thought")
        ]
        assert {k[1] for k in by_call} == {"react", "extract.predict"}
    else:
        assert prediction.answer
