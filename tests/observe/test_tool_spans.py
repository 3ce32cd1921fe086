"""Spans of tools and agents: the user's spans in a tool are its children; contents only by choice, without keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from opentelemetry import trace
from tests.observe.spans import Traced, attributes, outcome, traced
from tests.programs.programs import Returns

from dspy_live import Tool, asyncify

__all__ = ["traced"]  # a fixture

SECRET = "sk-abcdef1234567890abcd"


def lm_that_calls(name: str, arguments: str = '{"n": 1}') -> DummyLM:
    """An LM that makes a ReAct call the tool once, and answer."""
    call = {"next_thought": "ask", "next_tool_name": name, "next_tool_args": arguments}
    finish = {"next_thought": "enough", "next_tool_name": "finish", "next_tool_args": "{}"}
    return DummyLM([call, finish, {"reasoning": "so", "answer": f"it is {SECRET}"}])


def look_up_of(user: Any, kind: str) -> Callable[..., Any]:
    """A tool with a span of the user's own."""

    def look_up(n: int) -> str:
        """Look a number up."""
        with user.start_as_current_span("in the tool"):
            return f"found {n} with api_key={SECRET}"

    if kind == "plain":
        return look_up

    async def look_up_later(n: int) -> str:
        """Look a number up."""
        with user.start_as_current_span("in the tool"):
            await asyncio.sleep(0)
            return f"found {n} with api_key={SECRET}"

    look_up_later.__name__ = "look_up"
    return look_up_later


async def ask_agent(traced: Traced, kind: str, way: Any, **options: Any) -> None:
    traced.start(**options)
    agent = dspy.ReAct("question -> answer", tools=[Tool(look_up_of(traced.user, kind))])
    with dspy.context(lm=lm_that_calls("look_up")):
        await asyncify(agent, execution=way, runtime=traced.runtime)(question="Why?")


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_the_users_spans_in_a_tool_are_its_children(traced: Traced, kind: str, way: Any) -> None:
    await ask_agent(traced, kind, way)
    (root,) = traced.tree()
    assert root[0] == "invoke_workflow ReAct"
    assert root[1][1] == ["execute_tool look_up", ["in the tool"]]
    names = [child if isinstance(child, str) else child[0] for child in root[1]]
    assert names == ["module react", "execute_tool look_up", "module react", "module extract"]


async def test_a_tools_span_has_the_conventions_attributes(traced: Traced) -> None:
    await ask_agent(traced, "plain", "native")
    assert attributes(traced.one("execute_tool look_up")) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look_up",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.description": "Look a number up.",
        "dspy_live.outcome": "ok",
    }


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_contents_of_tools_and_modules_are_told_by_choice_without_keys(traced: Traced, way: Any) -> None:
    await ask_agent(traced, "plain", way, contents=True)
    tool = attributes(traced.one("execute_tool look_up"))
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"n": 1}
    assert tool["gen_ai.tool.call.result"] == '"found 1 with api_key=[redacted]"'
    extract = attributes(traced.one("module extract"))
    assert json.loads(extract["dspy_live.inputs"])["question"] == "Why?"
    assert json.loads(extract["dspy_live.outputs"])["answer"] == "it is [redacted]"
    everything = "".join(span.to_json() for span in traced.spans)
    assert SECRET not in everything
    assert "it is [redacted]" in attributes(traced.one("invoke_workflow ReAct"))["dspy_live.outputs"]


async def test_no_contents_are_told_otherwise(traced: Traced) -> None:
    await ask_agent(traced, "plain", "native")
    told = {name for span in traced.spans for name in attributes(span)}
    assert not told & {"gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "dspy_live.inputs", "dspy_live.outputs"}


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_a_tool_that_fails_says_so(traced: Traced, way: Any) -> None:
    def breaks(n: int) -> str:
        """Break."""
        raise KeyError(SECRET)

    traced.start(contents=True)
    with dspy.context(lm=lm_that_calls("breaks")):
        agent = dspy.ReAct("question -> answer", tools=[breaks])
        await asyncify(agent, execution=way, runtime=traced.runtime)(question="Why?")
    assert outcome(traced.one("execute_tool breaks")) == ("error", "KeyError", True)
    assert outcome(traced.one("invoke_workflow ReAct")) == ("ok", None, False)
    assert SECRET not in "".join(span.to_json() for span in traced.spans)


class Desk(dspy.Module):  # type: ignore[misc]
    """An agent inside a program."""

    def __init__(self, tool: Callable[..., Any]) -> None:
        super().__init__()
        self.helper = dspy.ReAct("question -> answer", tools=[tool])

    def forward(self, question: str) -> Any:
        return self.helper(question=question)


async def test_an_agent_inside_a_program_is_an_agent(traced: Traced) -> None:
    traced.start()
    with dspy.context(lm=lm_that_calls("look_up")):
        await asyncify(Desk(look_up_of(traced.user, "plain")), runtime=traced.runtime)(question="Why?")
    ((_, [(agent, children)]),) = traced.tree()
    assert agent == "invoke_agent helper"
    assert children[1] == ["execute_tool look_up", ["in the tool"]]
    found = attributes(traced.one("invoke_agent helper"))
    assert (found["gen_ai.operation.name"], found["gen_ai.agent.name"]) == ("invoke_agent", "helper")
    assert found["dspy_live.module_class"] == "ReAct"


async def test_a_tool_that_calls_a_tool_is_around_it(traced: Traced) -> None:
    inner = dspy.Tool(look_up_of(traced.user, "plain"))

    def outer(n: int) -> str:
        """Ask another tool."""
        return str(inner(n=n))

    traced.start()
    with dspy.context(lm=lm_that_calls("outer")):
        await asyncify(dspy.ReAct("question -> answer", tools=[outer]), runtime=traced.runtime)(question="Why?")
    (root,) = traced.tree()
    assert root[1][1] == ["execute_tool outer", [["execute_tool look_up", ["in the tool"]]]]


async def test_a_tool_that_leaves_a_span_open_moves_no_other(traced: Traced) -> None:
    def careless(n: int) -> str:
        """Attach a context and forget it."""
        from opentelemetry import context

        context.attach(trace.set_span_in_context(traced.user.start_span("forgotten")))
        return "so"

    traced.start()
    with dspy.context(lm=lm_that_calls("careless")):
        agent = dspy.ReAct("question -> answer", tools=[careless])
        await asyncify(agent, execution="native", runtime=traced.runtime)(question="Why?")
    (root,) = traced.tree()
    assert [child[0] for child in root[1] if isinstance(child, list)] == ["module react"] * 2 + ["module extract"]


async def test_a_program_without_modules_has_a_span_too(traced: Traced) -> None:
    async def answer(question: str) -> Any:
        with traced.user.start_as_current_span("in the function"):
            return dspy.Prediction(answer=question)

    traced.start()
    await asyncify(answer, runtime=traced.runtime)(question="Why?")
    with dspy.context(lm=DummyLM([{"answer": "so"}])):
        await asyncify(Returns("text"), runtime=traced.runtime)(question="Why?")
    (first, second) = traced.tree()
    assert first[1] == ["in the function"]
    assert second[1][0][0] == "module ask"
