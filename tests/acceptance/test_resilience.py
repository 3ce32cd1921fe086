"""A spent deadline or budget ends a program whatever the program swallows, in each way that it can run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import dspy
import httpx
import pytest
from tests.programs.conftest import Sim, paced, sim  # noqa: F401  (fixtures)
from tests.support.until import BOUND, async_until

from dspy_live import Budget, Parallel, Runtime, asyncify, batch, streamify
from dspy_live.core.errors import BudgetExceeded, DeadlineExceeded, LiveError
from dspy_live.layers import Deadline, Limit
from dspy_live.layers.detached import leaving

QA = "question -> answer"
MANY = 40


class Asks(dspy.Module):  # type: ignore[misc]
    """The parts that the programs below share: one predictor, and a count of how often it was to be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(QA)


class Loop(Asks):
    def forward(self, question: str) -> Any:
        for n in range(MANY):
            try:
                self.ask(question=f"{question} {n}")
            except Exception:
                continue
        return dspy.Prediction(answer="never")

    async def aforward(self, question: str) -> Any:
        for n in range(MANY):
            try:
                await self.ask.acall(question=f"{question} {n}")
            except Exception:
                continue
        return dspy.Prediction(answer="never")


class Best(dspy.Module):  # type: ignore[misc]
    """BestOfN swallows what its module raises and tries again."""

    def __init__(self) -> None:
        super().__init__()
        self.best = dspy.BestOfN(dspy.Predict(QA), N=MANY, reward_fn=lambda *_: 0.0, threshold=1.0, fail_count=MANY)

    def forward(self, question: str) -> Any:
        return self.best(question=question)


class InThreads(Asks):
    """dspy.Parallel keeps its failures and gives None in their place."""

    def forward(self, question: str) -> Any:
        pairs = [(self.ask, dspy.Example(question=f"{question} {n}").with_inputs("question")) for n in range(MANY)]
        return dspy.Parallel(num_threads=3, max_errors=1000, disable_progress_bar=True)(pairs)


class InOurThreads(Asks):
    """Ours waits without blocking the loop of an inline run."""

    def forward(self, question: str) -> Any:
        pairs = [(self.ask, dspy.Example(question=f"{question} {n}").with_inputs("question")) for n in range(MANY)]
        return Parallel(num_threads=3, max_errors=1000, disable_progress_bar=True)(pairs)


class ModuleBatch(Asks):
    def forward(self, question: str) -> Any:
        examples = [dspy.Example(question=f"{question} {n}").with_inputs("question") for n in range(MANY)]
        return self.ask.batch(examples, num_threads=3, max_errors=1000, disable_progress_bar=True)


class Agent(dspy.Module):  # type: ignore[misc]
    """ReAct tells the model of its tools' failures and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Loop()
        self.react = dspy.ReAct(QA, tools=[dspy.Tool(self.look_up, name="look_up")], max_iters=MANY)

    def look_up(self, query: str) -> str:
        """Look something up."""
        return str(self.inner(question=query).answer)

    def forward(self, question: str) -> Any:
        return self.react(question=question)


class AsyncAgent(Agent):
    async def look_up(self, query: str) -> str:  # type: ignore[override]
        """Look something up."""
        return str((await self.inner.acall(question=query)).answer)

    async def aforward(self, question: str) -> Any:
        return await self.react.acall(question=question)


class Gathers(Asks):
    async def aforward(self, question: str) -> Any:
        """Eight rounds of five calls at once, whose failures are but items of a list."""
        for part in range(MANY // 5):
            calls = (self.ask.acall(question=f"{question} {part} {n}") for n in range(5))
            await asyncio.gather(*calls, return_exceptions=True)
        return dspy.Prediction(answer="never")


CASES: list[tuple[Callable[[], Any], str]] = [
    *((Loop, way) for way in ("native", "thread", "inline")),
    *((make, way) for make in (Best, InOurThreads, Agent) for way in ("thread", "inline")),
    *((make, "thread") for make in (InThreads, ModuleBatch)),
    (AsyncAgent, "native"),
    (Gathers, "native"),
]
NAMES = [f"{make.__name__}-{way}" for make, way in CASES]


async def over(lm: Sim) -> None:
    """Wait until nothing of a program runs any more, and the LM has heard all that was sent to it."""
    await async_until(lambda: not leaving())
    async with httpx.AsyncClient(timeout=BOUND, trust_env=False) as client:
        await client.get(f"{lm.url}/models")
    await async_until(lambda: not lm.server.stats.active)


@pytest.mark.parametrize(("make", "way"), CASES, ids=NAMES)
async def test_a_deadline_is_not_swallowed(paced: Sim, make: Any, way: Any) -> None:  # noqa: F811
    limit = Limit(1)
    runtime = Runtime(layers=[Deadline(0.4), limit])
    with dspy.context(lm=paced.lm(num_retries=0)), pytest.raises(DeadlineExceeded):
        await asyncify(make(), execution=way, runtime=runtime)(question="Why?")
    await over(paced)
    assert limit.statistics().active == 0
    asked = paced.server.stats.requests
    assert asked <= MANY
    await asyncio.sleep(0.15)
    assert paced.server.stats.requests == asked, "nothing asks on after the end"


@pytest.mark.parametrize(("make", "way"), CASES, ids=NAMES)
@pytest.mark.parametrize("where", ["layer", "scope"])
async def test_a_budget_is_not_swallowed(sim: Sim, make: Any, way: Any, where: str) -> None:  # noqa: F811
    budget = Budget(max_calls=3)
    runtime = Runtime(layers=[budget] if where == "layer" else [])
    call = asyncify(make(), execution=way, runtime=runtime)
    with dspy.context(lm=sim.lm(num_retries=0)):
        if where == "layer":
            with pytest.raises(BudgetExceeded):
                await call(question="Why?")
        else:
            with budget, pytest.raises(BudgetExceeded):
                await call(question="Why?")
    # Calls side by side were admitted before the first of them was booked.
    assert sim.server.stats.requests <= (5 if make is Gathers else 3 + 2)


@pytest.mark.parametrize(("make", "way"), CASES, ids=NAMES)
async def test_a_stream_that_is_left_ends_the_program(paced: Sim, make: Any, way: Any) -> None:  # noqa: F811
    with dspy.context(lm=paced.lm(num_retries=0)):
        stream = streamify(make(), execution=way)(question="Why?")
        async for _ in stream:
            break
        await stream.aclose()
    await over(paced)


@pytest.mark.parametrize("layers", [[], [Deadline(0.4)]], ids=["timeout", "layer"])
@pytest.mark.parametrize("make", [InThreads, ModuleBatch])
async def test_dspys_own_parallel_blocks_an_inline_run_yet_ends_with_its_time(
    paced: Sim,  # noqa: F811
    make: Any,
    layers: Any,
) -> None:
    """DSPy's own waits on the loop's thread: no timer fires meanwhile, so its threads look at the clock themselves."""
    with dspy.context(lm=paced.lm(num_retries=0)), pytest.raises(DeadlineExceeded):
        await asyncify(make(), execution="inline", timeout=0.4, runtime=Runtime(layers=layers))(question="Why?")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "the caller's own task is intact"
    assert paced.server.stats.requests <= 6, "two rounds of three threads at the most"


def test_a_budget_over_a_batch_ends_each_item_with_its_own_error(sim: Sim) -> None:  # noqa: F811
    with dspy.context(lm=sim.lm()), Budget(max_calls=4):
        results = batch(dspy.Predict(QA), [{"question": str(n)} for n in range(12)], concurrency=2, progress=False)
    good = [r for r in results if isinstance(r, dspy.Prediction)]
    assert 4 <= len(good) <= 5
    assert {r.kind for r in results if not isinstance(r, dspy.Prediction)} == {"BudgetExceeded"}
    assert sim.server.stats.requests == len(good)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda: Deadline(0), "0"),
        (lambda: Deadline(-1), "-1"),
        (lambda: Limit(0), "0"),
        (lambda: Limit(-3), "-3"),
        (lambda: Budget(max_calls=0), "0"),
        (lambda: Budget(max_cost=-1), "-1"),
    ],
)
def test_limits_that_can_not_be_are_refused_with_their_value(make: Callable[[], Any], got: str) -> None:
    with pytest.raises((ValueError, LiveError), match=f"got {got}"):
        make()
