"""Inline: what blocks is named, what can't work says why, what can be refused is refused."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import greenlet
import pytest
from tests.programs.conftest import Sim
from tests.support.leap import leap
from tests.support.until import async_until, until

from dspy_live import asyncify
from dspy_live.core.errors import Cancelled, DeadlineExceeded
from dspy_live.runtime.execution import execution
from dspy_live.runtime.execution.blocked import BlockingCodeWarning, BlockWatch, _users_line, watch

QA = "question -> answer"


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    watch.warned.clear()
    yield
    watch.warned.clear()


class Blocks(dspy.Module):  # type: ignore[misc]
    """Blocks for some seconds, and once more until it was named: on a busy machine the watcher comes late."""

    def __init__(self, seconds: float, until_named: bool = False) -> None:
        super().__init__()
        self.ask = dspy.Predict(QA)
        self.seconds = seconds
        self.until_named = until_named

    def forward(self, question: str) -> Any:
        prediction = self.ask(question=question)
        for _ in range(100):
            time.sleep(self.seconds)  # this one
            if watch.warned or not self.until_named:
                break
        return prediction


LINE = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# this one"))


async def test_the_line_that_blocks_is_named_once(sim: Sim) -> None:
    call = asyncify(Blocks(0.2, until_named=True), execution="inline")
    with dspy.context(lm=sim.lm()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await call(question="one")
        await call(question="two")
    told = [w for w in caught if w.category is BlockingCodeWarning]
    assert [(w.filename, w.lineno) for w in told] == [(__file__, LINE)]
    assert "execution='thread'" in str(told[0].message)


async def test_a_computation_and_a_library_of_the_users_are_named_too(sim: Sim) -> None:

    def computes(question: str) -> int:
        end = time.monotonic() + 30
        n = 0
        while time.monotonic() < end and not watch.warned:
            n += 1
        return n

    def waits(question: str) -> None:
        for _ in range(100):
            subprocess.run(["sleep", "0.15"], check=True)
            if watch.warned:
                break

    for program in (computes, waits):
        watch.warned.clear()
        with pytest.warns(BlockingCodeWarning) as told:
            await asyncify(program, execution="inline")(question="?")
        assert {w.filename for w in told} == {__file__}


async def test_waiting_for_lms_is_no_blocking(sim: Sim) -> None:
    sim.server.set_options(ttft=0.3, tps=None)
    with dspy.context(lm=sim.lm()), warnings.catch_warnings():
        warnings.simplefilter("error")
        call = asyncify(Blocks(0.0), execution="inline")
        await asyncio.gather(*(call(question=str(i)) for i in range(20)))
    assert watch.warned == set()


async def test_in_a_thread_blocking_is_nobodys_business(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()), warnings.catch_warnings():
        warnings.simplefilter("error")
        await asyncify(Blocks(0.15), execution="thread")(question="?")
    assert watch.warned == set()


async def test_where_warnings_are_errors_the_run_goes_on(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (await asyncify(Blocks(0.15, until_named=True), execution="inline")(question="?")).answer
    assert (__file__, LINE) in watch.warned


@pytest.mark.parametrize(("looks", "told"), [(3, []), (4, [7]), (5, [7, 7])])
def test_a_process_that_stood_still_has_not_blocked_its_loop(
    monkeypatch: pytest.MonkeyPatch, looks: int, told: list[int]
) -> None:
    """A minute passes between two looks at the same step: that is not for the line to answer for, four looks are."""

    class Over(Exception):
        pass

    minutes = itertools.count()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > looks:
            raise Over

    seen: list[int] = []
    watching = BlockWatch(lambda: 60.0 * next(minutes), sleep)
    watching._active, watching._steps = 1, {7: 1}
    monkeypatch.setattr(watching, "_tell", seen.append)
    with pytest.raises(Over):
        watching._look()
    assert seen == told


def test_the_watcher_goes_when_no_run_is_inline(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspy_live.runtime.execution.blocked._LINGER", 0.05)
    asyncio.run(asyncify(lambda question: question, execution="inline")(question="?"))
    until(lambda: not any(t.name == "dspy-live-blocked" for t in threading.enumerate()))
    assert asyncio.run(asyncify(lambda question: question, execution="inline")(question="again")) == "again"


def test_dspys_own_work_is_not_blamed_on_the_user() -> None:
    import sys

    assert _users_line(sys._getframe()) is not None
    frames: list[Any] = []

    class Adapter(dspy.ChatAdapter):  # type: ignore[misc]
        def format_task_description(self, signature: Any) -> str:
            frames.append(sys._getframe().f_back)
            return ""

    Adapter().format_system_message(dspy.Signature(QA))
    assert _users_line(frames[0]) is None


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("way", ["run", "until_complete", "same_loop"])
async def test_a_loop_inside_a_loop_is_a_clear_error(way: str) -> None:
    def program(question: str) -> Any:
        work = asyncio.sleep(0)
        try:
            if way == "run":
                return asyncio.run(work)
            loop = asyncio.new_event_loop() if way == "until_complete" else asyncio.get_running_loop()
            try:
                return loop.run_until_complete(work)
            finally:
                if way == "until_complete":
                    loop.close()
        finally:
            work.close()

    with pytest.raises(RuntimeError) as caught:
        await asyncify(program, execution="inline")(question="?")
    assert "use execution='thread'" in "".join(caught.value.__notes__)
    if way != "same_loop":
        assert await asyncify(program, execution="thread")(question="?") is None


async def test_an_execution_that_a_program_can_not_have_is_refused() -> None:
    async def asynchronous(question: str) -> str:
        return question

    for way in ("inline", "thread"):
        with pytest.raises(ValueError, match="asynchronous is a coroutine function, so it can only run natively"):
            asyncify(asynchronous, execution=way)  # type: ignore[arg-type]
    assert await asyncify(asynchronous)(question="x") == "x"


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
@pytest.mark.parametrize("end", ["cancel", "deadline", "raise"])
async def test_user_code_is_left_as_python_leaves_it(sim: Sim, way: Any, end: str) -> None:
    """``except Exception`` does not see a stop; ``finally`` and context managers run, the innermost first."""
    sim.server.set_options(ttft=60.0 if end != "raise" else 0.0, tps=None)
    left: list[str] = []

    class Managed:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, *_: Any) -> None:
            left.append(f"{self.name} {kind.__name__}")

    class Program(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        def forward(self, question: str) -> Any:
            try:
                with Managed("outer"):
                    try:
                        with Managed("inner"):
                            self.ask(question=question)
                            raise KeyError("mine")
                    except ValueError:
                        left.append("wrong")
                    finally:
                        left.append("finally")
            except Exception as exc:
                left.append(f"except {type(exc).__name__}")
                raise

        async def aforward(self, question: str) -> Any:
            try:
                with Managed("outer"):
                    try:
                        with Managed("inner"):
                            await self.ask.acall(question=question)
                            raise KeyError("mine")
                    except ValueError:
                        left.append("wrong")
                    finally:
                        left.append("finally")
            except Exception as exc:
                left.append(f"except {type(exc).__name__}")
                raise

    with dspy.context(lm=sim.lm(num_retries=0, stream="always")):
        task = asyncio.create_task(asyncify(Program(), execution=way, timeout=30)(question="?"))
        expected: Any = {"cancel": asyncio.CancelledError, "deadline": DeadlineExceeded, "raise": KeyError}[end]
        if end != "raise":
            await async_until(lambda: sim.server.stats.active)
        if end == "cancel":
            task.cancel()
        elif end == "deadline":
            leap(30)
        with pytest.raises(expected):
            await task
        await async_until(lambda: len(left) >= 3 and not sim.server.stats.active)
    kind = left[0].split()[1]
    assert kind == "KeyError" if end == "raise" else kind in ("Stop", "CancelledError")
    assert left == [f"inner {kind}", "finally", f"outer {kind}"] + (["except KeyError"] if end == "raise" else [])
    assert sim.server.stats.active == 0


async def test_one_that_swallows_everything_is_parked_and_its_caller_is_told(
    sim: Sim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "MAX_REFUSALS", 5)
    sim.server.set_options(ttft=60.0)
    tries = 0

    class Never(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        def forward(self, question: str) -> Any:
            nonlocal tries
            while tries < 100_000:
                tries += 1
                try:
                    self.ask(question=question)
                except BaseException:
                    continue

    before = execution.parked()
    with dspy.context(lm=sim.lm()):
        task = asyncio.create_task(asyncify(Never(), execution="inline", timeout=30)(question="?"))
        await async_until(lambda: sim.server.stats.active)
        leap(30)
        with pytest.raises((DeadlineExceeded, Cancelled)):
            await task
    assert execution.parked() == before + 1
    assert tries == 7  # the first was stopped, five were refused, the last was never answered
    assert sim.server.stats.requests == 1


@pytest.mark.parametrize("error", [KeyError, RuntimeError])
async def test_no_traceback_carries_a_greenlet(sim: Sim, error: type[Exception]) -> None:
    """One that outlives its thread in a traceback is freed by greenlet while a collection looks at it: a crash."""

    class Fails(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            dspy.Predict(QA)(question=question)
            raise error("mine")

    with dspy.context(lm=sim.lm()), pytest.raises(error, match="mine") as failed:
        await asyncify(Fails(), execution="inline")(question="?")
    frames = [frame for frame, _ in traceback.walk_tb(failed.value.__traceback__)]
    assert {"inline", "_step", "step", "forward"} <= {frame.f_code.co_name for frame in frames}
    found = [value for frame in frames for value in frame.f_locals.values()]
    found += [getattr(value, "__self__", None) for value in found]
    assert not [value for value in found if isinstance(value, greenlet.greenlet)]


def test_an_error_of_a_thread_that_asked_for_its_greenlet_can_be_collected_at_the_threads_end() -> None:
    """greenlet drops a reference too many where a collection holds the last one: the frame must not have it."""
    script = """
import gc, threading
from dspy_live.runtime.execution import bridge

class Garbage:
    def __init__(self, error, go, thread):
        self.error, self.go, self.thread, self.me = error, go, thread, self

    def __del__(self):
        self.go.set()
        self.thread.join()
        for _ in range(100_000):  # greenlet looks at the ended thread in a pending call of this one
            pass

bridge.InlineGreenlet = "no class"
made, go = threading.Event(), threading.Event()

def work():
    try:
        bridge.in_inline_run()
    except TypeError as error:
        Garbage(error, go, threading.current_thread())
    made.set()
    go.wait()

gc.disable()
threading.Thread(target=work).start()
made.wait()
gc.collect()
gc.collect()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
