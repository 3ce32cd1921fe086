"""Spans tell the truth of what was cancelled, failed, tried again, answered by another LM, or by the cache."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMServerError
from tests.observe.spans import CHAT, Asks, Traced, attributes, is_client, outcome, traced
from tests.programs.conftest import Sim, sim
from tests.programs.programs import Rag
from tests.support.leap import leap
from tests.support.until import async_until

from dspy_live import LM, Runtime, asyncify, streamify
from dspy_live.core.call import Call
from dspy_live.core.errors import DeadlineExceeded, Stop
from dspy_live.core.sink import Sink
from dspy_live.layers.fallback import Fallback
from dspy_live.programs.lm import layers
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.simulator import Faults

__all__ = ["sim", "traced"]  # fixtures

OTHER = "openai/gpt-4.1-nano"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_BACKOFF", Backoff(base=0.001, cap=0.002))


class Stalls:
    """An endpoint that answers nobody, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, call: Call, sink: Sink) -> Any:
        self.asked += 1
        await asyncio.Event().wait()


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_a_run_that_its_caller_leaves_is_cancelled_and_no_error(traced: Traced, way: Any) -> None:
    traced.start()
    endpoint = Stalls()
    with dspy.context(lm=LM("openai/gpt-4o-mini", endpoint=endpoint, cache=False)):
        predict = asyncify(dspy.ChainOfThought("question -> answer"), execution=way, runtime=traced.runtime)
        task = asyncio.ensure_future(predict(question="Why?"))
        await async_until(lambda: endpoint.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await async_until(lambda: traced.named("invoke_workflow ChainOfThought"))
    assert [outcome(span) for span in traced.spans] == [("cancelled", None, False)] * 3
    assert traced.tree() == [["invoke_workflow ChainOfThought", [["module predict", [CHAT]]]]]
    assert "gen_ai.usage.input_tokens" not in attributes(traced.one(CHAT))


async def test_a_reader_that_leaves_a_stream_cancels_it(traced: Traced) -> None:
    traced.start()
    endpoint = Stalls()
    with dspy.context(lm=LM("openai/gpt-4o-mini", endpoint=endpoint, cache=False)):
        stream = streamify(dspy.Predict("question -> answer"), runtime=traced.runtime)(question="Why?")
        reading = asyncio.ensure_future(anext(stream))
        await async_until(lambda: endpoint.asked)
        reading.cancel()
        await asyncio.wait([reading])
        await stream.aclose()
    await async_until(lambda: traced.named("invoke_workflow Predict"))
    assert outcome(traced.one("invoke_workflow Predict")) == ("cancelled", None, False)


async def test_a_run_whose_time_is_up_has_failed_and_its_lm_call_was_cancelled(traced: Traced) -> None:
    traced.start()
    endpoint = Stalls()
    with dspy.context(lm=LM("openai/gpt-4o-mini", endpoint=endpoint, cache=False)):
        ask = asyncify(dspy.Predict("question -> answer"), timeout=3600, runtime=traced.runtime)
        asked = asyncio.ensure_future(ask(question="Why?"))
        await async_until(lambda: endpoint.asked)
        leap(3600)
        with pytest.raises(DeadlineExceeded):
            await asked
    await async_until(lambda: traced.named("invoke_workflow Predict"))
    assert outcome(traced.one("invoke_workflow Predict")) == ("error", "DeadlineExceeded", True)
    assert outcome(traced.one(CHAT)) == ("cancelled", None, False)


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_a_failure_is_told_at_each_level(traced: Traced, sim: Sim, way: Any) -> None:
    traced.start()
    sim.server.set_faults(Faults(schedule=("500",)))
    with dspy.context(lm=sim.lm(num_retries=0)), pytest.raises(LMServerError):
        await asyncify(Rag() if way != "native" else dspy.ChainOfThought("question -> answer"), execution=way,
                       runtime=traced.runtime)(question="secret question")  # fmt: skip
    assert {outcome(span) for span in traced.spans} == {("error", "LMServerError", True)}
    assert "secret" not in "".join(span.to_json() for span in traced.spans)


class Catches(Asks):
    """A program that goes on without an answer."""

    def forward(self, question: str) -> Any:
        try:
            return super().forward(question)
        except LMServerError:
            return dspy.Prediction(answer="no idea")


async def test_a_failure_that_the_program_catches_is_the_modules_alone(traced: Traced, sim: Sim) -> None:
    traced.start()
    sim.server.set_faults(Faults(schedule=("500",)))
    with dspy.context(lm=sim.lm(num_retries=0)):
        await asyncify(Catches(traced.user), runtime=traced.runtime)(question="Why?")
    assert outcome(traced.one("invoke_workflow Catches")) == ("ok", None, False)
    assert outcome(traced.one("module think")) == ("error", "LMServerError", True)


async def test_each_try_is_a_span_with_its_number(traced: Traced, sim: Sim) -> None:
    traced.start()
    sim.server.set_faults(Faults(schedule=("429", "503")))
    with dspy.context(lm=sim.lm(num_retries=3)):
        await asyncify(dspy.Predict("question -> answer"), runtime=traced.runtime)(question="Why?")
    tries = traced.named(CHAT)
    assert [attributes(span).get("dspy_live.attempt") for span in tries] == [None, 2, 3]
    assert {attributes(span)["dspy_live.lm_call"] for span in tries} == {1}
    assert [outcome(span)[:2] for span in tries] == [
        ("error", "LMRateLimitError"),
        ("error", "LMServerError"),
        ("ok", None),
    ]
    assert outcome(traced.one("invoke_workflow Predict")) == ("ok", None, False)


async def test_a_fallbacks_answer_has_its_own_model_and_server(traced: Traced, sim: Sim) -> None:
    traced.start()
    sim.server.set_faults(Faults(schedule=("500",)))
    runtime = Runtime(account=traced.account, lm_layers=[Fallback(sim.lm(OTHER).service())])
    with dspy.context(lm=sim.lm(num_retries=0)):
        await asyncify(dspy.Predict("question -> answer"), runtime=runtime)(question="Why?")
    first, second = traced.one(CHAT), traced.one("chat gpt-4.1-nano")
    assert outcome(first) == ("error", "LMServerError", True)
    assert outcome(second) == ("ok", None, False)
    found = attributes(second)
    assert (found["dspy_live.attempt"], found["dspy_live.model"]) == (2, OTHER)
    assert found["gen_ai.response.model"] == "gpt-4.1-nano"
    assert found["server.address"] == "127.0.0.1"


async def test_an_answer_from_the_cache_asks_no_lm_and_uses_nothing(traced: Traced, sim: Sim) -> None:
    traced.start()
    ask = asyncify(dspy.Predict("question -> answer"), runtime=traced.runtime)
    with dspy.context(lm=sim.lm(cache=True, rollout_id=f"{id(traced)}", temperature=1.0)):
        await ask(question="of the cache's test")
        await ask(question="of the cache's test")
    asked, found = traced.named(CHAT)
    assert (attributes(asked)["dspy_live.cache"], attributes(found)["dspy_live.cache"]) == ("miss", "hit")
    assert is_client(asked)
    assert not is_client(found)
    of_use = {"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "server.address", "dspy_live.cost_usd"}
    assert attributes(asked).keys() >= of_use - {"dspy_live.cost_usd"}
    assert not attributes(found).keys() & of_use
    assert outcome(found) == ("ok", None, False)


async def test_spans_that_a_run_leaves_open_end_with_it(traced: Traced) -> None:
    traced.start()
    left: list[asyncio.Task[Any]] = []

    class Leaves(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        async def aforward(self, question: str) -> Any:
            left.append(asyncio.ensure_future(self.ask.acall(question=question)))
            await async_until(lambda: endpoint.asked)
            return dspy.Prediction(answer="so")

    endpoint = Stalls()
    with dspy.context(lm=LM("openai/gpt-4o-mini", endpoint=endpoint, cache=False)):
        await asyncify(Leaves(), runtime=traced.runtime)(question="Why?")
    await asyncio.wait(left)
    assert isinstance(left[0].exception(), Stop)
    assert outcome(traced.one("invoke_workflow Leaves")) == ("ok", None, False)
    assert outcome(traced.one("module ask")) == ("cancelled", None, False)
    assert all(span.end_time is not None for span in traced.spans)
