"""``get_lm_usage()``: each prediction of a run tells what its own module call has used, in every execution.

DSPy tells the outermost one only (#10191), and loses what the threads of ``dspy.Parallel`` use (#9201, #9360).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dspy
import pytest
from tests.programs.conftest import MODEL, Sim

from dspy_live import asyncify, streamify, track_usage

QA = "question -> answer"
EXECUTIONS = pytest.mark.parametrize("execution", ["native", "thread", "inline"])
WHERE = pytest.mark.parametrize("where", ["setting", "their block", "our block", "both"])


def tokens(prediction: Any) -> int:
    """The tokens that a prediction says were used for it; -1 where it says nothing."""
    usage = prediction.get_lm_usage()
    if usage is None:
        return -1
    return sum(int(entry["total_tokens"]) for entry in usage.values())


@contextmanager
def tracked(where: str) -> Iterator[Any]:
    """Track usage by DSPy's setting, by a block, or by both; yields the block's tracker."""
    with ExitStack() as stack:
        stack.enter_context(dspy.context(track_usage=where in ("setting", "both")))
        if where == "setting":
            yield None
        else:
            yield stack.enter_context(track_usage() if where == "our block" else dspy.track_usage())


class Fans(dspy.Module):  # type: ignore[misc]
    """Two at once and one after them, each with tokens of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(QA)
        self.think = dspy.ChainOfThought(QA)
        self.inner: list[Any] = []

    def forward(self, question: str) -> Any:
        pairs = [(self.ask, {"question": question}), (self.think, {"question": question})]
        self.inner = dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
        return self._sum(self.ask(question="And then?"))

    async def aforward(self, question: str) -> Any:
        calls = (self.ask.acall(question=question), self.think.acall(question=question))
        self.inner = [*await asyncio.gather(*calls)]
        return self._sum(await self.ask.acall(question="And then?"))

    def _sum(self, last: Any) -> Any:
        self.inner.append(last)
        return dspy.Prediction(answer=last.answer)


@EXECUTIONS
@WHERE
async def test_each_prediction_has_its_own_tokens(sim: Sim, execution: Any, where: str) -> None:
    program, lm = Fans(), sim.lm()
    with dspy.context(lm=lm), tracked(where) as tracker:
        prediction = await asyncify(program, execution=execution)(question="What is Rust?")
    used = [tokens(inner) for inner in program.inner]
    replies = [next(e for e in lm.history if inner.answer in str(e["outputs"])) for inner in program.inner]
    assert used == [reply["usage"]["total_tokens"] for reply in replies]
    assert len(set(used)) == 3
    assert tokens(prediction) == sum(used)
    if tracker is not None:
        assert tracker.get_total_tokens()[MODEL]["total_tokens"] == sum(used)


@EXECUTIONS
async def test_without_tracking_they_say_nothing(sim: Sim, execution: Any) -> None:
    program = Fans()
    with dspy.context(lm=sim.lm()):
        prediction = await asyncify(program, execution=execution)(question="What is Rust?")
    assert [tokens(p) for p in (prediction, *program.inner)] == [-1] * 4


async def test_runs_at_once_and_their_block_count_apart(sim: Sim) -> None:
    call = asyncify(Fans(), execution="thread")
    with dspy.context(lm=sim.lm()), dspy.track_usage() as tracker:
        predictions = await asyncio.gather(*[call(question=f"What is {n}?") for n in range(8)])
    assert tracker.get_total_tokens()[MODEL]["total_tokens"] == sum(tokens(p) for p in predictions)


@EXECUTIONS
async def test_a_run_inside_a_run_counts_for_both(sim: Sim, execution: Any) -> None:
    inner = asyncify(dspy.Predict(QA))

    class Outer(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        def forward(self, question: str) -> Any:
            from dspy_live.programs.run.user_loop import run_coroutine

            return run_coroutine(lambda: self.aforward(question))

        async def aforward(self, question: str) -> Any:
            self.seen = [await inner(question=question), await self.ask.acall(question="Another?")]
            return dspy.Prediction(answer="done")

    program = Outer()
    with dspy.context(lm=sim.lm()), tracked("both") as tracker:
        prediction = await asyncify(program, execution=execution)(question="What is Rust?")
    assert tokens(prediction) == sum(tokens(p) for p in program.seen) > max(tokens(p) for p in program.seen) > 0
    assert tracker.get_total_tokens()[MODEL]["total_tokens"] == tokens(prediction)


@EXECUTIONS
async def test_a_block_of_dspys_in_the_program_counts_for_all_around_it(sim: Sim, execution: Any) -> None:
    class Counts(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        def forward(self, question: str) -> Any:
            with dspy.track_usage() as tracker:
                self.ask(question=question)
            self.counted = tracker.get_total_tokens()
            return dspy.Prediction(answer="done")

        async def aforward(self, question: str) -> Any:
            with dspy.track_usage() as tracker:
                await self.ask.acall(question=question)
            self.counted = tracker.get_total_tokens()
            return dspy.Prediction(answer="done")

    program = Counts()
    with dspy.context(lm=sim.lm()), tracked("both") as tracker:
        prediction = await asyncify(program, execution=execution)(question="What is Rust?")
    assert program.counted == prediction.get_lm_usage() == tracker.get_total_tokens()
    assert tokens(prediction) > 0


async def test_a_tools_own_predictor_counts_for_the_agent(sim: Sim) -> None:
    seen: list[Any] = []

    class Agent(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = dspy.Tool(summarize)

        async def aforward(self, question: str) -> Any:
            await self.tool.acall(text=question)
            return dspy.Prediction(answer="done")

    def summarize(text: str) -> str:
        """Summarize."""
        seen.append(dspy.Predict("text -> summary")(text=text))
        return str(seen[0].summary)

    with dspy.context(lm=sim.lm()), tracked("setting"):
        prediction = await asyncify(Agent())(question="What is Rust?")
    assert tokens(prediction) == tokens(seen[0]) > 0


async def test_a_streamed_prediction_has_its_tokens(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()), tracked("setting"):
        items: list[Any] = [i async for i in streamify(Fans(), execution="thread")(question="What is Rust?")]
    assert tokens(items[-1]) > 0


async def test_an_answer_from_the_cache_has_used_nothing(sim: Sim) -> None:
    class Twice(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        async def aforward(self, question: str) -> Any:
            self.seen = [await self.ask.acall(question=question) for _ in range(2)]
            return dspy.Prediction(answer="done")

    program = Twice()
    with dspy.context(lm=sim.lm(cache=True)), tracked("setting"):
        prediction = await asyncify(program)(question="What is asked twice here?")
    assert tokens(program.seen[1]) == 0
    assert tokens(prediction) == tokens(program.seen[0])
