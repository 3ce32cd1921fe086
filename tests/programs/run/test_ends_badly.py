"""Programs that block, call sys.exit or raise what is no Exception: the run ends with an error, the process goes on."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import dspy
import pytest
from tests.programs.conftest import Sim
from tests.support.leap import leap
from tests.support.until import async_until

from dspy_live import Parallel, Runtime, Tool, asyncify, streamify
from dspy_live.core.errors import DeadlineExceeded, ProgramFailed
from dspy_live.layers import Deadline, Limit
from dspy_live.layers.detached import leaving

WAYS = ("native", "thread", "inline")


class Raises(dspy.Module):  # type: ignore[misc]
    """Raises what it was given; a number is an exit status."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, question: str) -> Any:
        if isinstance(self.error, SystemExit):
            sys.exit(3)
        raise self.error

    async def aforward(self, question: str) -> Any:
        return self.forward(question)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("secret")])
async def test_a_base_exception_ends_the_run_and_nothing_else(way: Any, error: BaseException) -> None:
    """From a thread, SystemExit and KeyboardInterrupt used to be thrown out of the whole event loop."""
    with pytest.raises(ProgramFailed, match=f"raised {type(error).__name__}") as caught:
        await asyncify(Raises(error), execution=way)(question="q")
    assert isinstance(caught.value.__cause__, type(error))
    with pytest.raises(ProgramFailed):
        async for _ in streamify(Raises(error), execution=way)(question="q"):
            pass


@pytest.mark.parametrize("way", WAYS)
async def test_an_exit_in_a_tool_or_in_parallel_ends_the_run_alone(way: Any) -> None:
    class Inside(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = Tool(lambda question: sys.exit(1), name="leave")
            self.bad = Raises(SystemExit(3))

        def forward(self, question: str) -> Any:
            if question == "tool":
                return self.tool(question=question)
            return Parallel(num_threads=2)([(self.bad, {"question": question})] * 3)

        async def aforward(self, question: str) -> Any:
            if question == "tool":
                return await self.tool.acall(question=question)
            return await Parallel(num_threads=2).acall([(self.bad, {"question": question})] * 3)

    for where in ("tool", "parallel"):
        with pytest.raises(ProgramFailed, match="raised SystemExit"):
            await asyncify(Inside(), execution=way)(question=where)


async def test_a_timeout_comes_in_time_though_the_program_blocks() -> None:
    begun, release, limit = threading.Event(), threading.Event(), Limit(1, queue=0)

    def blocks(question: str) -> str:
        begun.set()
        release.wait(60)
        return question

    async def read() -> None:
        async for _ in streamify(blocks, timeout=30)(question="x"):
            pass

    for run in (asyncify(blocks, timeout=30, runtime=Runtime(layers=[limit]))(question="x"), read()):
        begun.clear()
        task = asyncio.ensure_future(run)
        await async_until(begun.is_set)
        leap(30)
        with pytest.raises(DeadlineExceeded):
            await task
    assert limit.statistics().active == 1, "the slot is the program's until it has ended"
    release.set()
    await async_until(lambda: leaving() == 0)
    assert limit.statistics().active == 0


async def test_a_deadline_that_a_blocking_program_sees_first_is_told_and_counted_like_any_other(sim: Sim) -> None:
    """Its error named no seconds, and the layer's statistics knew nothing of it."""

    class Blocks(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            leap(30)  # as if it had blocked the loop for so long
            return self.ask(question=question)

    deadline = Deadline(30)
    with dspy.context(lm=sim.lm()), pytest.raises(DeadlineExceeded, match="longer than the 30 s that it had"):
        await asyncify(Blocks(), execution="inline", layers=[deadline])(question="x")
    assert deadline.statistics().exceeded == 1
    assert sim.server.stats.requests == 0


@pytest.mark.parametrize("meanwhile", [False, True], ids=["running", "leaving"])
async def test_a_deadline_around_a_program_that_blocks_is_no_cancellation_of_its_caller(meanwhile: bool) -> None:
    """The layer ends the call by a cancellation of its own; nobody else may see it, however long the program takes."""
    begun, release = threading.Event(), threading.Event()

    def blocks(question: str) -> str:
        begun.set()
        release.wait(60)
        return question

    async def when_begun() -> None:
        await async_until(begun.is_set)
        leap(30)
        await asyncio.sleep(0.2)
        if not meanwhile:
            release.set()  # without a timeout of its own the caller waits for the program's end

    # With a timeout just before the layer's, the caller is leaving already when the layer's time is up.
    ask = asyncify(blocks, timeout=30 if meanwhile else None, runtime=Runtime(layers=[Deadline(30.05)]))
    task = asyncio.current_task()
    assert task is not None
    leaping = asyncio.create_task(when_begun())
    with pytest.raises(DeadlineExceeded):
        await ask(question="x")
    assert task.cancelling() == 0
    await leaping
    release.set()
    await async_until(lambda: leaving() == 0)
    assert task.cancelling() == 0


@pytest.mark.parametrize("way", WAYS)
async def test_results_without_a_json_form_are_still_results(sim: Sim, way: Any) -> None:
    """What only a reply over the network needs must not fail a program that is awaited in Python."""
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for value in (b"\xff\x00", cycle, deep, 10**5000, object(), {1: {2}}, "\ud800"):

        async def program(question: str, value: Any = value) -> Any:
            return dspy.Prediction(answer=value)

        kept = (lambda question, value=value: dspy.Prediction(answer=value)) if way != "native" else program
        assert (await asyncify(kept, execution=way)(question="q")).answer is value
