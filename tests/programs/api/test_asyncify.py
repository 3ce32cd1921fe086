"""asyncify and the three ways of execution: concurrency, cancellation, deadlines, exceptions, threads."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import threading
import warnings
from typing import Any

import dspy
import httpx
import pytest
from tests.programs.conftest import HeldSim, Sim
from tests.programs.programs import Gather, InParallel, NativeRag, Rag, Swallows
from tests.support.leap import leap
from tests.support.until import async_until

from dspy_live import LM, Runtime, asyncify, streamify
from dspy_live.core.errors import DeadlineExceeded
from dspy_live.layers.detached import leaving
from dspy_live.runtime.execution.bridge import BlockingCallWarning

QA = "question -> answer"
WAYS = ("native", "thread", "inline")


@pytest.mark.parametrize("way", WAYS)
async def test_results_are_the_programs(sim: Sim, way: Any) -> None:
    program = NativeRag() if way == "native" else Rag()
    with dspy.context(lm=sim.lm()):
        expected = await asyncio.to_thread(Rag(), question="What is Rust?")
        assert (await asyncify(program, execution=way)(question="What is Rust?")).summary == expected.summary


@pytest.mark.parametrize("way", WAYS)
async def test_many_at_once(held: HeldSim, way: Any) -> None:
    """dspy.asyncify allows 8 at a time."""
    call = asyncify(dspy.Predict(QA), execution=way)
    with dspy.context(lm=held.lm()):
        calls = asyncio.gather(*(call(question=f"question {i}") for i in range(100)))
        await async_until(lambda: len(held.server.held) == 100)
        held.server.release()
        results = await calls
    assert len({r.answer for r in results}) == 100


async def test_auto_is_native_where_every_module_is() -> None:
    from dspy_live.programs.run.execution_choice import choose_execution

    assert choose_execution(dspy.Predict(QA), "auto") == "native"
    assert choose_execution(NativeRag(), "auto") == "native"
    assert choose_execution(Rag(), "auto") == "thread"
    assert choose_execution(lambda question: question, "auto") == "thread"
    with pytest.raises(ValueError, match="has no aforward"):
        asyncify(Rag(), execution="native")
    with pytest.raises(ValueError, match="has no forward"):
        asyncify(Gather(), execution="thread")
    with pytest.raises(ValueError, match="auto, native, thread, inline"):
        asyncify(Rag(), execution="magic")  # type: ignore[arg-type]


def test_an_object_that_is_no_program_is_refused() -> None:
    with pytest.raises(TypeError, match="make an instance of it"):
        asyncify(Rag)
    with pytest.raises(TypeError, match=r"a program is a dspy\.Module object or a callable; got 7"):
        asyncify(7)
    for timeout in (0, -1, float("nan"), "1", True):
        with pytest.raises(ValueError, match="positive number of seconds"):
            asyncify(Rag(), timeout=timeout)  # type: ignore[arg-type]


async def test_positional_arguments_and_plain_functions(sim: Sim) -> None:
    ask = dspy.Predict(QA)
    with dspy.context(lm=sim.lm()):
        assert (await asyncify(Rag())("What is Rust?")).summary
        with pytest.raises(ValueError, match="Positional arguments are not allowed"):
            await asyncify(ask)("What is Rust?")
        assert await asyncify(lambda question: ask(question=question).answer)(question="What?")


@pytest.mark.parametrize("way", WAYS)
async def test_cancelling_closes_the_lm_and_stops_the_program(endless: Sim, way: Any) -> None:
    """dspy.asyncify abandons its thread, which goes on asking the LM."""
    program = NativeRag() if way == "native" else Rag()
    stats = endless.server.stats
    with dspy.context(lm=endless.lm(stream="always")):
        task = asyncio.create_task(asyncify(program, execution=way)(question="What is Rust?"))
        await async_until(lambda: stats.active == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await async_until(lambda: stats.disconnects == 1)
    await async_until(lambda: leaving() == 0)
    await asyncio.sleep(0.1)
    assert stats.requests == 1
    assert stats.finished == stats.active == 0


@pytest.mark.parametrize("way", ["thread", "inline"])
@pytest.mark.parametrize("base", [Exception, BaseException])
async def test_a_program_that_swallows_everything_stops(endless: Sim, way: Any, base: Any) -> None:
    program = Swallows(base)
    stats = endless.server.stats
    with dspy.context(lm=endless.lm()):
        task = asyncio.create_task(asyncify(program, execution=way, timeout=30)(question="What?"))
        await async_until(lambda: stats.active == 1)
        leap(30)
        with pytest.raises(DeadlineExceeded):
            await task
        await async_until(lambda: stats.active == 0)
        await async_until(lambda: program.cleaned >= 1)
        await asyncio.sleep(0.2)
    assert stats.requests == 1
    if base is Exception:
        assert program.tries == 1


async def test_a_limit_counts_threads_until_they_have_ended() -> None:
    """With a limit of 2, dspy.asyncify lets 6 calls through: a cancelled one frees its slot at once."""
    running, most = 0, 0
    lock, release = threading.Lock(), threading.Event()

    def blocks(question: str) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(60)
        with lock:
            running -= 1
        return question

    call = asyncify(blocks, runtime=Runtime(max_threads=2))
    tasks = [asyncio.create_task(call(question=str(i))) for i in range(6)]
    await async_until(lambda: running == 2)
    for task in tasks[:2]:
        task.cancel()
    left = await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert [type(end) for end in left] == [asyncio.CancelledError] * 2
    await asyncio.sleep(0.1)
    assert running == 2
    release.set()
    assert await asyncio.gather(*tasks[2:]) == ["2", "3", "4", "5"]
    assert most == 2


async def test_a_caller_is_not_held_up_by_a_program_that_blocks() -> None:
    begun, release = threading.Event(), threading.Event()

    def blocks(question: str) -> str:
        begun.set()
        release.wait(60)
        return question

    await async_until(lambda: leaving() == 0)
    task = asyncio.create_task(asyncify(blocks)(question="x"))
    await async_until(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leaving() == 1
    release.set()
    await async_until(lambda: leaving() == 0)


async def test_dspys_own_worker_setting_bounds_threads(held: HeldSim) -> None:
    with dspy.context(lm=held.lm(), async_max_workers=3):
        call = asyncify(Rag())
        calls = asyncio.gather(*(call(question=f"question {i}") for i in range(9)))
        await async_until(lambda: len(held.server.held) == 3)
        await asyncio.sleep(0.1)
        assert held.server.arrived == 3
        held.server.release()
        assert len(await calls) == 9


@pytest.mark.timeout(300)
async def test_two_thousand_inline_runs_at_once(held: HeldSim) -> None:
    held.server.set_options(length=3)
    before = threading.active_count()
    call = asyncify(dspy.Predict(QA), execution="inline")
    with dspy.context(lm=held.lm(max_tokens=8, num_retries=0, timeout=httpx.Timeout(300))):
        calls = asyncio.gather(*(call(question=f"question {i}") for i in range(2000)), return_exceptions=True)
        await async_until(lambda: len(held.server.held) == 2000, 200)
        held.server.release()
        results = await calls
    assert (
        sum(isinstance(r, dspy.Prediction) for r in results)
        + sum(type(r).__name__ == "AdapterParseError" for r in results)
        == 2000
    )
    assert threading.active_count() <= before + 1


async def test_context_variables_go_with_the_call(sim: Sim) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

    def who(question: str) -> str:
        return tenant.get()

    tenant.set("acme")
    assert await asyncify(who)(question="?") == "acme"
    assert await asyncify(who, execution="inline")(question="?") == "acme"


async def test_programs_inside_programs(sim: Sim) -> None:
    inner = asyncify(dspy.Predict(QA))

    class Outer(dspy.Module):  # type: ignore[misc]
        async def aforward(self, question: str) -> Any:
            return await inner(question=question)

    with dspy.context(lm=sim.lm()):
        assert (await asyncify(Outer())(question="What is Rust?")).answer
        for program in (Gather(), InParallel()):
            assert len((await asyncify(program)(question="Which")).answers) in (3, 4)


async def test_parallel_inside_is_cancelled_too(endless: Sim) -> None:
    with dspy.context(lm=endless.lm(stream="always")):
        task = asyncio.create_task(asyncify(InParallel(), timeout=30)(question="Which"))
        await async_until(lambda: endless.server.stats.active == 4)
        leap(30)
        with pytest.raises(DeadlineExceeded):
            await task
        await async_until(lambda: endless.server.stats.active == 0)
    assert endless.server.stats.disconnects == 4


async def test_a_sync_submodule_inside_aforward_warns_and_works(sim: Sim) -> None:
    class Mixed(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        async def aforward(self, question: str) -> Any:
            return self.ask(question=question)

    with dspy.context(lm=sim.lm()), pytest.warns(BlockingCallWarning, match="await the module's acall"):
        assert (await asyncify(Mixed())(question="What is Rust?")).answer


async def test_config_for_one_call(sim: Sim) -> None:
    lm = sim.lm(cache=True)
    call = asyncify(Rag())
    with dspy.context(lm=lm):
        await call(question="What is fresh?")
        requests = sim.server.stats.requests
        await call(question="What is fresh?")
        assert sim.server.stats.requests == requests
        await call(question="What is fresh?", config={"rollout_id": 5, "temperature": 1.0})
        assert sim.server.stats.requests == requests + 2
        with pytest.raises(TypeError, match="config must be a dict"):
            await call(question="?", config=[1])
    assert lm.kwargs.get("rollout_id") is None


def test_two_loops_one_after_the_other_and_a_closed_one(sim: Sim) -> None:
    call = asyncify(Rag())
    lm = sim.lm()

    async def once() -> Any:
        with dspy.context(lm=lm):
            return await call(question="What is Rust?")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(once()).summary == asyncio.run(once()).summary


def test_two_loops_at_once(sim: Sim) -> None:
    results: list[Any] = []
    lm = sim.lm()
    # Made here: in some versions of Python 3.11, signatures that two threads parse at once end in a SystemError.
    ask = [asyncify(Rag()) for _ in range(5)]

    def loop() -> None:
        async def once() -> Any:
            with dspy.context(lm=lm):
                return await asyncio.gather(*(one(question=f"question {i}") for i, one in enumerate(ask)))

        results.extend(asyncio.run(once()))

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10


def _child(url: str, queue: Any) -> None:
    lm = LM("openai/gpt-4o-mini", api_base=url, api_key="x", cache=False)
    with dspy.context(lm=lm):
        queue.put(dspy.Predict(QA)(question="after the fork").answer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_a_fork(sim: Sim) -> None:
    sim.lm()("before the fork")
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    process = context.Process(target=_child, args=(sim.url, queue))
    process.start()
    try:
        assert "fork" in queue.get(timeout=20)
    finally:
        process.join(5)
        process.kill()


async def test_a_stream_of_an_asyncified_program(sim: Sim) -> None:
    call = asyncify(Rag())
    with dspy.context(lm=sim.lm()):
        items = [item async for item in streamify(call)(question="What is Rust?")]
    assert items[-1].summary
