"""A real LM server (llama.cpp's own), real tokens, real fragments of UTF-8, real disconnects."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from tests.programs.api.test_streamify import joined
from tests.programs.programs import Rag
from tests.support.lm_server import LMServer, chat_grammar

from dspy_live import LM, PartialValue, asyncify, streamify

ENDLESS = {"answer": "[a-z ]+"}
MINUTES = 1_000_000
"""Tokens of a reply that nobody waits for: the server is still at work after minutes, unless it was told to stop."""


def lm_of(server: LMServer, fields: Any = ("answer",), words: int = 40, **options: Any) -> LM:
    grammar = {"grammar": chat_grammar(fields, words)}
    options = {"max_tokens": 2000, "cache": False, "num_retries": 0, "temperature": 1.0, **options}
    return LM("openai/tiny", api_base=server.url, api_key="x", extra_body=grammar, **options)


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_a_program_runs_and_streams(lm_server: LMServer, way: Any) -> None:
    with dspy.context(lm=lm_of(lm_server, words=150, seed=3)):
        whole = await asyncify(dspy.Predict("question -> answer"), execution=way)(question="What?")
        stream = streamify(dspy.Predict("question -> answer"), execution=way)
        items = [item async for item in stream(question="What?")]
    assert len(whole.answer) > 40
    assert joined(items) == items[-1].answer


async def test_typed_fields_and_json_schema(lm_server: LMServer) -> None:
    """With ``response_format`` even random weights answer in the adapter's format."""
    lm = LM(
        "openai/tiny",
        api_base=lm_server.url,
        api_key="x",
        max_tokens=3000,
        cache=False,
        temperature=1.0,
        seed=5,
        num_retries=0,
        capabilities=["response_schema"],
    )
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        items = [i async for i in streamify(dspy.Predict("question -> good: bool, level: int"))(question="What?")]
    values = {i.signature_field_name: i.value for i in items if isinstance(i, PartialValue)}
    assert values == {"good": items[-1].good, "level": items[-1].level}


async def test_nested_modules(lm_server: LMServer) -> None:
    program = Rag()
    program.answer.predict.lm = lm_of(lm_server, ["reasoning", "answer"])
    program.sum.lm = lm_of(lm_server, ["summary"])
    items = [item async for item in streamify(program)(question="What?")]
    assert joined(items, "summary") == items[-1].summary
    assert {i.predict_name for i in items if isinstance(i, str)} == {"answer.predict", "sum"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_the_server_stops_generating_when_the_reader_leaves(lm_server: LMServer, way: Any) -> None:
    await asyncio.to_thread(lm_server.idle_after, 30.0)
    with dspy.context(lm=lm_of(lm_server, ENDLESS, max_tokens=MINUTES)):
        stream = streamify(dspy.Predict("question -> answer"), execution=way)(question="What?")
        for _ in range(10):
            await anext(stream)
        assert await asyncio.to_thread(lm_server.busy) == 1
        await stream.aclose()
        await asyncio.to_thread(lm_server.idle_after, 30.0)


async def test_a_cancelled_call_stops_the_server_too(lm_server: LMServer) -> None:
    with dspy.context(lm=lm_of(lm_server, ENDLESS, max_tokens=MINUTES, stream="always")):
        task = asyncio.create_task(asyncify(dspy.Predict("question -> answer"), execution="thread")(question="What?"))
        while not await asyncio.to_thread(lm_server.busy):
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(lm_server.idle_after, 30.0)


async def test_many_at_once(lm_server: LMServer) -> None:
    call = asyncify(dspy.Predict("question -> answer"))
    with dspy.context(lm=lm_of(lm_server, words=8)):
        answers = await asyncio.gather(*(call(question=f"What is {i}?") for i in range(12)))
    assert all(a.answer for a in answers)
