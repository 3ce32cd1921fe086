"""Who calls from where, and which loop does the I/O: every cell of the table in ``runtime/bridge.py``, none stuck."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import dspy
import pytest
from tests.programs.conftest import MODEL

from dspy_live import LM, Parallel, Tool, asyncify, streamify, syncify
from dspy_live.core.call import Call
from dspy_live.core.events import Completion, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.runtime.execution import background, bridge
from dspy_live.runtime.execution.bridge import BlockingCallWarning

QA = "question -> answer"
TEXT = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"


class Where:
    """An LM's endpoint that answers after a moment and notes the loops that it was asked on."""

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def __call__(self, call: Call, sink: Sink) -> Completion:
        self.loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0.01)
        sink.push(TextDelta(TEXT))
        return Completion({"model": "m", "choices": [{"message": {"content": TEXT}}]})


@pytest.fixture
def where() -> Where:
    return Where()


def lm_of(where: Where) -> LM:
    return LM(MODEL, api_key="x", cache=False, endpoint=where)


class Program(dspy.Module):  # type: ignore[misc]
    """Does in ``forward`` what it is given."""

    def __init__(self, body: Callable[[Any], Any]) -> None:
        super().__init__()
        self.ask = dspy.Predict(QA)
        self.body = body

    def forward(self, question: str) -> Any:
        return self.body(self.ask)


class AsyncProgram(dspy.Module):  # type: ignore[misc]
    def __init__(self, body: Callable[[Any], Awaitable[Any]]) -> None:
        super().__init__()
        self.ask = dspy.Predict(QA)
        self.body = body

    async def aforward(self, question: str) -> Any:
        return await self.body(self.ask)


def ask(predict: Any) -> Any:
    return predict(question="?")


async def aask(predict: Any) -> Any:
    return await predict.acall(question="?")


async def bounded(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(30):
        return await awaitable


async def test_a_native_run_uses_its_own_loop(where: Where) -> None:
    with dspy.context(lm=lm_of(where)):
        await bounded(asyncify(AsyncProgram(aask))(question="?"))
        await bounded(dspy.Predict(QA).acall(question="?"))
    assert where.loops == [asyncio.get_running_loop()] * 2


@pytest.mark.parametrize("way", ["thread", "inline"])
async def test_a_sync_call_in_a_runs_thread_or_greenlet_uses_the_runs_loop(where: Where, way: Any) -> None:
    with dspy.context(lm=lm_of(where)):
        await bounded(asyncify(Program(ask), execution=way)(question="?"))
    assert where.loops == [asyncio.get_running_loop()]


@pytest.mark.parametrize("way", ["thread", "inline"])
@pytest.mark.parametrize("parallel", [dspy.Parallel, Parallel])
async def test_other_threads_use_the_io_loop(where: Where, way: Any, parallel: Any) -> None:
    def body(predict: Any) -> Any:
        return parallel(num_threads=3, disable_progress_bar=True)([(predict, {"question": str(i)}) for i in range(3)])

    with dspy.context(lm=lm_of(where)):
        results = await bounded(asyncify(Program(body), execution=way)(question="?"))
    assert [r.answer for r in results] == ["yes"] * 3
    assert where.loops == [background.io.loop] * 3


@pytest.mark.parametrize("way", ["thread", "inline"])
async def test_a_users_own_executor_uses_the_io_loop(where: Where, way: Any) -> None:
    """It has no part in the run: DSPy's context does not go along, so the LM is the predictor's own."""

    def body(predict: Any) -> Any:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return [f.result().answer for f in [pool.submit(ask, predict) for _ in range(2)]]

    program = Program(body)
    program.set_lm(lm_of(where))
    assert await bounded(asyncify(program, execution=way)(question="?")) == ["yes", "yes"]
    assert where.loops == [background.io.loop] * 2


async def test_a_sync_call_on_a_loops_own_thread_uses_the_io_loop_and_warns(where: Where) -> None:
    """A notebook, and a synchronous submodule inside an ``aforward``."""

    async def body(predict: Any) -> Any:
        return ask(predict)

    with dspy.context(lm=lm_of(where)):
        with pytest.warns(BlockingCallWarning) as told:
            ask(dspy.Predict(QA))
        assert {w.filename for w in told} == {__file__}
        with pytest.warns(BlockingCallWarning) as told:
            await bounded(asyncify(AsyncProgram(body))(question="?"))
    assert where.loops == [background.io.loop] * 2
    assert {w.filename for w in told} == {__file__}


def test_no_loop_anywhere_uses_the_io_loop(where: Where) -> None:
    with dspy.context(lm=lm_of(where)), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ask(dspy.Predict(QA)).answer == "yes"
        thread = threading.Thread(target=lambda: lm_of(where)("from a thread of nobody's"))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert where.loops == [background.io.loop] * 2


def test_a_synchronous_front_door_runs_on_the_run_loop(where: Where) -> None:
    with dspy.context(lm=lm_of(where)):
        for program in (AsyncProgram(aask), Program(ask)):
            items = list(streamify(program, async_streaming=False)(question="?"))
            assert items[-1].answer == "yes"
    assert where.loops == [background.runs.loop] * 2


def test_a_sync_call_in_a_coroutine_on_the_run_loop_uses_the_io_loop(where: Where) -> None:
    async def body(predict: Any) -> Any:
        return ask(predict)

    with dspy.context(lm=lm_of(where)), pytest.warns(BlockingCallWarning):
        items = list(streamify(AsyncProgram(body), async_streaming=False)(question="?"))
    assert items[-1].answer == "yes"
    assert where.loops == [background.io.loop]


async def test_asyncio_run_inside_a_thread_run_uses_its_own_loop(where: Where) -> None:
    loops: list[Any] = []

    async def inside(predict: Any) -> Any:
        loops.append(asyncio.get_running_loop())
        return await aask(predict)

    with dspy.context(lm=lm_of(where)):
        await bounded(asyncify(Program(lambda predict: asyncio.run(inside(predict))), execution="thread")(question="?"))
    assert where.loops == loops
    assert loops[0] not in (asyncio.get_running_loop(), background.io.loop)


async def test_a_sync_call_inside_asyncio_run_inside_a_thread_run_uses_the_io_loop(where: Where) -> None:
    async def inside(predict: Any) -> Any:
        return ask(predict)

    with dspy.context(lm=lm_of(where)), pytest.warns(BlockingCallWarning):
        await bounded(asyncify(Program(lambda predict: asyncio.run(inside(predict))), execution="thread")(question="?"))
    assert where.loops == [background.io.loop]


@pytest.mark.parametrize("outer", ["thread", "inline", "native"])
@pytest.mark.parametrize("inner", ["thread", "inline", "native"])
async def test_programs_in_programs(where: Where, outer: Any, inner: Any) -> None:
    """A program that waits for another one, which runs in any way: on the same loop, or from a thread of the run."""
    inside = asyncify(AsyncProgram(aask) if inner == "native" else Program(ask), execution=inner)

    async def abody(_: Any) -> Any:
        return await inside(question="?")

    def body(_: Any) -> Any:
        return syncify(AsyncProgram(abody))(question="?")

    program = AsyncProgram(abody) if outer == "native" else Program(body)
    with dspy.context(lm=lm_of(where)):
        assert (await bounded(asyncify(program, execution=outer)(question="?"))).answer == "yes"
    assert where.loops == [asyncio.get_running_loop()]


@pytest.mark.parametrize("way", ["thread", "inline", "native"])
async def test_async_tools_that_ask_the_lm(where: Where, way: Any) -> None:
    """A synchronous program calls an asynchronous tool, which runs a program of its own."""
    predict = dspy.Predict(QA)

    async def research(topic: str) -> str:
        return str((await aask(predict)).answer)

    tool = Tool(research)

    async def abody(_: Any) -> Any:
        return await tool.acall(topic="x")

    program = AsyncProgram(abody) if way == "native" else Program(lambda _: tool(topic="x"))
    with dspy.context(lm=lm_of(where)):
        assert await bounded(asyncify(program, execution=way)(question="?")) == "yes"
    assert where.loops == [asyncio.get_running_loop()]


async def test_threads_that_wait_for_runs_of_this_loop(where: Where) -> None:
    """More threads than places, each waiting for a run on the loop that started it."""
    inside = asyncify(Program(ask), execution="inline")
    loop = asyncio.get_running_loop()

    def body(_: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(inside(question="?"), loop).result(30)

    with dspy.context(lm=lm_of(where)):
        call = asyncify(Program(body), execution="thread")
        await bounded(asyncio.gather(*(call(question=str(i)) for i in range(50))))
    assert where.loops == [loop] * 50


def test_threads_that_ask_first_at_the_same_time_share_one_loop() -> None:
    """Each had made a lock, and with it a loop, of its own."""
    for _ in range(20):
        made = background.BackgroundLoop("dspy-live-test")
        barrier = threading.Barrier(8)
        loops: list[Any] = []

        def first(made: Any = made, barrier: Any = barrier, loops: Any = loops) -> None:
            barrier.wait()
            loops.append(made.loop)

        threads = [threading.Thread(target=first) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, loops))) == 1
        made.loop.call_soon_threadsafe(made.loop.stop)


def test_two_loops_at_once_and_one_after_the_other(where: Where) -> None:
    lm, loops = lm_of(where), []

    async def once() -> None:
        loops.append(asyncio.get_running_loop())
        with dspy.context(lm=lm):
            await bounded(asyncio.gather(*(asyncify(Program(ask))(question=str(i)) for i in range(3))))

    threads = [threading.Thread(target=lambda: asyncio.run(once())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    asyncio.run(once())
    assert sorted(map(id, where.loops)) == sorted(id(loop) for loop in loops for _ in range(3))


def test_a_thread_whose_runs_loop_has_been_closed_uses_the_io_loop() -> None:
    class Place:
        works: Any = set()
        stopped = None

        def check(self) -> None: ...

        def on_stop(self, callback: Any) -> None: ...

        def forget(self, callback: Any) -> None: ...

    loop = asyncio.new_event_loop()
    place: Any = Place()
    place.loop, place.worker = loop, threading.get_ident()
    loop.close()

    async def which() -> Any:
        return asyncio.get_running_loop()

    assert bridge.wait_for(which, place) is background.io.loop


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_a_fork_the_child_has_loops_of_its_own(where: Where) -> None:
    lm = lm_of(where)
    with dspy.context(lm=lm):
        ask(dspy.Predict(QA))
        list(streamify(Program(ask), async_streaming=False)(question="?"))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with dspy.context(lm=lm):
                said = ask(dspy.Predict(QA)).answer
                said += list(streamify(Program(ask), async_streaming=False)(question="?"))[-1].answer
                said += asyncio.run(asyncify(Program(ask), execution="inline")(question="?")).answer
            os.write(write, said.encode())
        finally:
            os._exit(0)
    os.close(write)
    too_late = threading.Timer(40, os.kill, (child, 9))
    too_late.start()
    said = os.read(read, 100)
    too_late.cancel()
    os.waitpid(child, 0)
    os.close(read)
    assert said == b"yesyesyes"


async def test_an_interrupt_of_a_waiting_thread_cancels_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a script: the LM call that the main thread waits for is cancelled."""
    began, cancelled = threading.Event(), threading.Event()

    async def waits() -> None:
        try:
            began.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupted(answer: Any) -> Any:
        began.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(bridge._Answer, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bridge.run_on(background.io.loop, waits, None)
    assert await asyncio.to_thread(cancelled.wait, 30)
