"""Whose words these are: copies, repetitions and agents, each token under its predictor's path and its LM call."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import dspy
import pytest
from tests.programs.conftest import Sim
from tests.programs.programs import Rag

from dspy_live import PartialValue, StreamListener, streamify
from dspy_live.core.events import Restart

QA = "question -> answer"
WAYS = ("native", "thread", "inline")


async def items_of(program: Any, way: Any = "auto", **options: Any) -> list[Any]:
    return [i async for i in streamify(program, execution=way, **options)(question="What is Rust?")]


def by_call(items: list[Any]) -> dict[tuple[int, str, str], str]:
    """The text of each field of each LM call that stands at the end."""
    texts: dict[tuple[int, str, str], str] = defaultdict(str)
    for item in items:
        if isinstance(item, Restart):
            for key in [k for k in texts if k[0] == item.lm_call and (not item.fields or k[2] in item.fields)]:
                del texts[key]
        elif isinstance(item, str):
            texts[item.lm_call, item.predict_name, item.signature_field_name] += item  # type: ignore[attr-defined]
    return dict(texts)


def answers(items: list[Any], path: str, field: str = "answer") -> list[str]:
    return [text for (_, predictor, name), text in sorted(by_call(items).items()) if (predictor, name) == (path, field)]


class TwoOfOne(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = dspy.Predict(QA), dspy.Predict(QA)

    def forward(self, question: str) -> Any:
        return dspy.Prediction(a=self.one(question=question).answer, b=self.two(question=question + "!").answer)

    async def aforward(self, question: str) -> Any:
        a, b = await asyncio.gather(self.one.acall(question=question), self.two.acall(question=question + "!"))
        return dspy.Prediction(a=a.answer, b=b.answer)


@pytest.mark.parametrize("way", WAYS)
async def test_two_predictors_of_one_class(sim: Sim, way: Any) -> None:
    with dspy.context(lm=sim.lm()):
        items = await items_of(TwoOfOne(), way)
    assert answers(items, "one") == [items[-1].a]
    assert answers(items, "two") == [items[-1].b]


async def test_one_of_two_is_listened_to(sim: Sim) -> None:
    listener = StreamListener(target_module="two", target_field="answer")
    with dspy.context(lm=sim.lm()):
        items = await items_of(TwoOfOne(), stream_listeners=[listener])
    assert {i.predict_name for i in items[:-1]} == {"two"}
    assert "".join(items[:-1]) == items[-1].b


@pytest.mark.parametrize("way", ["thread", "inline"])
async def test_a_copy_is_called_by_its_originals_name(sim: Sim, way: Any) -> None:
    class Copies(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rag = Rag()

        def forward(self, question: str) -> Any:
            return self.rag.deepcopy()(question=question)

    with dspy.context(lm=sim.lm()):
        items = await items_of(Copies(), way)
    assert {k[1] for k in by_call(items)} == {"rag.answer.predict", "rag.sum"}
    assert answers(items, "rag.sum", "summary") == [items[-1].summary]


@pytest.mark.parametrize("way", ["thread", "inline"])
@pytest.mark.parametrize("kind", ["BestOfN", "Refine"])
async def test_every_try_streams_as_its_own_call(sim: Sim, way: Any, kind: str) -> None:
    seen: list[str] = []

    def reward(_: Any, prediction: Any) -> float:
        seen.append(prediction.answer)
        return float(len(seen) == 2)

    program = getattr(dspy, kind)(dspy.Predict(QA), N=3, reward_fn=reward, threshold=1.0)
    with dspy.context(lm=sim.lm()):
        items = await items_of(program, way)
    tries = answers(items, "module")
    assert tries == seen
    assert len(tries) == 2
    assert items[-1].answer == tries[-1]
    assert all(k[0] for k in by_call(items))


@pytest.mark.filterwarnings("ignore:The 'prefix' argument:DeprecationWarning")
@pytest.mark.parametrize("way", ["thread", "inline"])
async def test_multi_chain_comparison(sim: Sim, way: Any) -> None:
    class Compares(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.think = dspy.ChainOfThought(QA)
            self.compare = dspy.MultiChainComparison(QA, M=2)

        def forward(self, question: str) -> Any:
            tries = [self.think(question=f"{question} {i}") for i in range(2)]
            return self.compare([{"rationale": str(t.reasoning), "answer": t.answer} for t in tries], question=question)

    with dspy.context(lm=sim.lm()):
        items = await items_of(Compares(), way)
    assert len(answers(items, "think.predict")) == 2
    assert answers(items, "compare.predict") == [items[-1].answer]


@pytest.mark.parametrize("way", WAYS)
async def test_two_step_adapter(sim: Sim, way: Any) -> None:
    """The first LM call answers in no format: only what the second extracts is anybody's field."""
    adapter = dspy.TwoStepAdapter(extraction_model=sim.lm())
    program = dspy.Predict("question -> answer, score: int")
    with dspy.context(lm=sim.lm(), adapter=adapter):
        items = await items_of(program, way)
    assert sim.server.stats.requests == 2
    texts = by_call(items)
    assert [(k[0], k[1]) for k in texts] == [(2, "self")]
    assert list(texts.values()) == [items[-1].answer]
    assert [i.value for i in items if isinstance(i, PartialValue)] == [items[-1].score]


@pytest.mark.parametrize("way", WAYS)
async def test_two_step_adapter_with_several_completions(sim: Sim, way: Any) -> None:
    """The words of the last extraction were left standing, where the prediction has those of the first."""
    adapter = dspy.TwoStepAdapter(extraction_model=sim.lm())
    program = dspy.Predict(QA, n=3, temperature=0.9)
    with dspy.context(lm=sim.lm(), adapter=adapter):
        items = await items_of(program, way)
    assert len(set(items[-1].completions.answer)) == 3
    assert answers(items, "self")[-1] == items[-1].answer


class Shouts(dspy.ChatAdapter):  # type: ignore[misc]
    """Changes what was read after it was parsed."""

    def __call__(self, *args: Any) -> Any:
        return [{k: v.upper() for k, v in values.items()} for values in super().__call__(*args)]

    async def acall(self, *args: Any) -> Any:
        return [{k: v.upper() for k, v in values.items()} for values in await super().acall(*args)]


@pytest.mark.parametrize("way", WAYS)
async def test_an_adapter_that_changes_values_after_parsing(sim: Sim, way: Any) -> None:
    with dspy.context(lm=sim.lm(), adapter=Shouts()):
        items = await items_of(dspy.Predict(QA), way)
    assert items[-1].answer.isupper()
    assert answers(items, "self") == [items[-1].answer]


@pytest.mark.parametrize("way", WAYS)
async def test_reacts_steps_and_its_extraction(sim: Sim, way: Any) -> None:
    def look_up(term: str) -> str:
        """Look a term up."""
        return f"{term} is a thing"

    agent = dspy.ReAct(QA, tools=[look_up], max_iters=3)
    listeners = [StreamListener("next_thought", allow_reuse=True), StreamListener("answer")]
    with dspy.context(lm=sim.lm()):
        items = await items_of(agent, way, stream_listeners=listeners)
    thoughts = [v for k, v in items[-1].trajectory.items() if k.startswith("thought_")]
    assert answers(items, "react", "next_thought") == thoughts
    assert answers(items, "extract.predict") == [items[-1].answer]


async def test_the_same_field_in_modules_at_every_depth(sim: Sim) -> None:
    class Level(dspy.Module):  # type: ignore[misc]
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)
            self.inner = [Level(depth - 1), Level(depth - 1)] if depth else []

        async def aforward(self, question: str) -> Any:
            await asyncio.gather(*(inner.acall(question=question + str(i)) for i, inner in enumerate(self.inner)))
            return await self.ask.acall(question=question)

    program = Level(2)
    with dspy.context(lm=sim.lm()):
        items = await items_of(program)
    paths = {path for path, _ in program.named_predictors()}
    assert {k[1] for k in by_call(items)} == paths
    assert len(paths) == len(by_call(items)) == 7
    assert answers(items, "ask") == [items[-1].answer]


async def test_one_predictor_many_times_at_once_and_in_a_row(sim: Sim) -> None:
    class Many(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        async def aforward(self, question: str) -> Any:
            first = await asyncio.gather(*(self.ask.acall(question=f"{question} {i}") for i in range(8)))
            last = await self.ask.acall(question=question)
            return dspy.Prediction(answers=[*(p.answer for p in first), last.answer])

    with dspy.context(lm=sim.lm()):
        items = await items_of(Many())
    assert sorted(answers(items, "ask")) == sorted(items[-1].answers)
    assert not any(isinstance(i, Restart) for i in items)


@pytest.mark.parametrize("way", WAYS)
async def test_cached_and_fresh_steps_mix(sim: Sim, way: Any) -> None:
    class Mixes(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.old, self.new = dspy.Predict("question -> old"), dspy.Predict("question, old -> new")

        def forward(self, question: str) -> Any:
            old = self.old(question="always the same")
            return self.new(question=question, old=old.old, config={"cache": False})

        async def aforward(self, question: str) -> Any:
            old = await self.old.acall(question="always the same")
            return await self.new.acall(question=question, old=old.old, config={"cache": False})

    with dspy.context(lm=sim.lm(cache=True)):
        await items_of(Mixes(), way)
        requests = sim.server.stats.requests
        items = await items_of(Mixes(), way)
    assert sim.server.stats.requests == requests + 1
    assert answers(items, "old", "old") != []
    assert answers(items, "new", "new") == [items[-1].new]


async def test_a_program_that_streams_nothing_and_one_that_raises_in_the_middle(sim: Sim) -> None:
    class Silent(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=question)

    class Raises(TwoOfOne):
        def forward(self, question: str) -> Any:
            self.one(question=question)
            raise LookupError("in the middle")

    with dspy.context(lm=sim.lm()):
        items = await items_of(Silent())
        assert [type(i) for i in items] == [dspy.Prediction]
        seen: list[Any] = []

        async def read() -> None:
            async for item in streamify(Raises(), execution="thread")(question="?"):
                seen.append(item)

        with pytest.raises(LookupError, match="in the middle"):
            await read()
    assert answers(seen, "one")
    assert {k[1] for k in by_call(seen)} == {"one"}
