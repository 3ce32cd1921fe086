"""``Parallel`` in place of ``dspy.Parallel``: nobody asked twice, the whole context goes along, a stop stops."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from typing import Any

import dspy
import pytest
import tqdm
from tests.programs.conftest import MODEL, HeldSim, Sim
from tests.support.until import async_until

from dspy_live import Parallel, asyncify, streamify, track_usage
from dspy_live.core.errors import Stop
from dspy_live.programs.api.parallel import TooManyErrors

QA = "question -> answer"
quiet: dict[str, Any] = {"num_threads": 4, "disable_progress_bar": True}


def pairs_of(module: Any, count: int) -> list[Any]:
    return [(module, dspy.Example(question=f"What is {i}?").with_inputs("question")) for i in range(count)]


class Fan(dspy.Module):  # type: ignore[misc]
    """Our Parallel inside a program, in both ways."""

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        self.ask = dspy.Predict(QA)
        self.count = count

    def forward(self, question: str) -> Any:
        return dspy.Prediction(answers=[r.answer for r in Parallel(**quiet)(pairs_of(self.ask, self.count))])

    async def aforward(self, question: str) -> Any:
        results = await Parallel(**quiet).acall(pairs_of(self.ask, self.count))
        return dspy.Prediction(answers=[r.answer for r in results])


def test_results_come_in_order_as_dspys_do(sim: Sim) -> None:
    ask = dspy.Predict(QA)
    with dspy.context(lm=sim.lm()):
        ours = Parallel(**quiet)(pairs_of(ask, 6))
        theirs = dspy.Parallel(**quiet)(pairs_of(ask, 6))
    assert [r.answer for r in ours] == [r.answer for r in theirs]


def test_every_form_of_example(sim: Sim) -> None:
    def module(question: Any = None, *more: Any) -> Any:
        return question if not more else (question, *more)

    inner = Parallel(**quiet)
    example = dspy.Example(question="e", label="no").with_inputs("question")
    assert Parallel(**quiet)([(module, {"question": "d"}), (module, ("t", "u")), (module, example)]) == [
        "d",
        ("t", "u"),
        "e",
    ]
    assert Parallel(**quiet, access_examples=False)([(module, example)]) == [example]
    assert Parallel(**quiet)([(inner, [(module, {"question": 1}), (module, {"question": 2})])]) == [[1, 2]]
    results, failed, errors = Parallel(**quiet, return_failed_examples=True)([(module, 7), (module, {"question": 1})])
    assert (results, failed) == ([None, 1], [7])
    assert "an example is a dspy.Example" in str(errors[0])


def test_failures_leave_none_and_too_many_end_the_rest() -> None:
    started: list[int] = []

    def fails(n: int) -> int:
        started.append(n)
        if n % 2:
            raise KeyError(n)
        return n

    results, failed, errors = Parallel(**quiet, return_failed_examples=True)([(fails, {"n": n}) for n in range(5)])
    assert results == [0, None, 2, None, 4]
    assert (failed, [type(e) for e in errors]) == ([{"n": 1}, {"n": 3}], [KeyError, KeyError])
    started.clear()
    one = Parallel(num_threads=1, disable_progress_bar=True, max_errors=2)
    with pytest.raises(TooManyErrors, match="2 of 100 pairs failed, and max_errors is 2") as caught:
        one([(fails, {"n": n}) for n in range(100)])
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(started) < 10


def test_failed_examples_belong_to_one_call() -> None:
    """DSPy's object collects the failures of all its calls."""

    def fails(n: int) -> int:
        raise KeyError(n)

    parallel = Parallel(**quiet, return_failed_examples=True)
    for _ in range(2):
        assert len(parallel([(fails, {"n": 1})])[1]) == 1


def test_context_variables_go_along() -> None:
    """dspy.Parallel hands over DSPy's own settings only."""
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    tenant.set("acme")
    pairs = [(lambda n: tenant.get(), {"n": 1})]
    assert Parallel(**quiet)(pairs) == ["acme"]
    assert dspy.Parallel(**quiet)(pairs) == ["nobody"]


def test_no_question_is_asked_twice() -> None:
    """dspy.Parallel sends the question of a straggler again (#9574)."""
    calls: list[int] = []
    lock = threading.Lock()

    def slow(n: int) -> int:
        with lock:
            calls.append(n)
        time.sleep(1.3)
        return n

    pairs = [(slow, {"n": 1}), (slow, {"n": 2})]
    assert Parallel(**quiet, timeout=1)(pairs) == [1, 2]
    assert sorted(calls) == [1, 2]


def test_usage_is_counted_in_the_threads(sim: Sim) -> None:
    """Under dspy.Parallel DSPy's tracker stays empty (#9201, #9360)."""
    with dspy.context(lm=sim.lm()), track_usage() as tracker:
        Parallel(**quiet)(pairs_of(dspy.Predict(QA), 3))
        once = tracker.get_total_tokens()[MODEL]["total_tokens"]
        dspy.Parallel(**quiet)(pairs_of(dspy.Predict(QA), 3))
    assert once > 0
    assert tracker.get_total_tokens()[MODEL]["total_tokens"] == 2 * once


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_inside_a_program_it_streams_and_stops(sim: Sim, way: Any) -> None:
    with dspy.context(lm=sim.lm(stream="always")):
        items = [i async for i in streamify(Fan(), execution=way)(question="?")]
        calls = {i.lm_call for i in items if isinstance(i, str)}  # type: ignore[attr-defined]
        texts = ["".join(i for i in items if isinstance(i, str) and i.lm_call == c) for c in calls]  # type: ignore[attr-defined]
        assert sorted(texts) == sorted(items[-1].answers)
        assert len(texts) == 4
        sim.server.set_options(ttft=60.0)
        stats = sim.server.stats
        requests = stats.requests
        task = asyncio.create_task(asyncify(Fan(20), execution=way)(question="?"))
        await async_until(lambda: stats.active == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await async_until(lambda: stats.active == 0)
    assert stats.requests - requests == 4


async def test_an_inline_run_that_waits_for_it_blocks_nobody(held: HeldSim) -> None:
    """dspy.Parallel inside an inline run holds the whole loop up; ours only the run."""
    # What holds the loop up would wait for ever otherwise, and the test with it.
    too_late = threading.Timer(15, held.server.release)
    too_late.start()
    try:
        with dspy.context(lm=held.lm()):
            task = asyncio.create_task(asyncify(Fan(), execution="inline")(question="?"))
            # Nobody is answered before this loop, on which the run waits too, has had its turns.
            await async_until(lambda: len(held.server.held) == 4)
            held.server.release()
            assert len((await task).answers) == 4
    finally:
        too_late.cancel()


def test_a_stop_is_no_failure_of_one_pair() -> None:
    from dspy_live.core.errors import Cancelled

    ended: list[int] = []
    other, stopped = threading.Event(), threading.Event()

    class Watched(Parallel):
        def _call(self, outcome: Any, module: Any, example: Any) -> Any:
            try:
                return super()._call(outcome, module, example)
            finally:
                if example["n"] == 0:
                    stopped.set()

    def stops(n: int) -> None:
        if n == 0:
            other.wait(30)
            raise Stop(Cancelled("stop"))
        other.set()
        stopped.wait(30)
        time.sleep(0.1)
        ended.append(n)

    with pytest.raises(Stop):
        Watched(num_threads=2, disable_progress_bar=True)([(stops, {"n": n}) for n in range(50)])
    assert ended == [1]  # what had begun has ended, nothing else was begun


async def test_awaiting_it(sim: Sim) -> None:
    class SyncOnly(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> str:
            return f"{threading.current_thread() is threading.main_thread()}"

    running, most = 0, 0

    class Counts(dspy.Module):  # type: ignore[misc]
        async def aforward(self, question: str) -> str:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await async_until(lambda: most >= 4)
            running -= 1
            if question == "What is 3?":
                raise KeyError("three")
            return question

    assert await Parallel(**quiet).acall(pairs_of(SyncOnly(), 2)) == ["False", "False"]
    results, failed, errors = await Parallel(**quiet, return_failed_examples=True).acall(pairs_of(Counts(), 9))
    assert most == 4
    assert results[3] is None
    assert (failed[0].question, [type(e) for e in errors]) == ("What is 3?", [KeyError])
    with pytest.raises(TooManyErrors):
        await Parallel(**quiet, max_errors=1).acall(pairs_of(Counts(), 9))


def test_many_without_a_bar_do_not_meet_in_tqdm() -> None:
    """Each ``dspy.Parallel`` empties tqdm's set of bars, in which a disabled bar of another thread looks for itself."""
    stop, before = threading.Event(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def empties() -> None:
        while not stop.is_set():
            tqdm.tqdm._instances.clear()

    other = threading.Thread(target=empties)
    other.start()
    try:
        for n in range(300):
            assert Parallel(num_threads=1, disable_progress_bar=True)([(lambda n: n, {"n": n})]) == [n]
    finally:
        sys.setswitchinterval(before)
        stop.set()
        other.join()
