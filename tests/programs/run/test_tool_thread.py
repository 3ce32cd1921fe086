"""A synchronous ``dspy.Tool`` that a run awaits runs in a thread; outside of runs it is DSPy's own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from tests.programs.conftest import MODEL, Sim
from tests.support.until import async_until

from dspy_live import asyncify, emit, streamify, syncify, track_usage
from dspy_live.core.errors import DeadlineExceeded
from dspy_live.core.events import Custom
from dspy_live.programs.run.tool_thread import install

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Uses(dspy.Module):  # type: ignore[misc]
    """Awaits its tools one after the other."""

    def __init__(self, *functions: Callable[..., Any]) -> None:
        super().__init__()
        self.tools = [dspy.Tool(function) for function in functions]

    async def aforward(self, question: str) -> Any:
        return dspy.Prediction(answer=[await tool.acall(n=1) for tool in self.tools])


def agent_of(tool: Callable[..., Any]) -> tuple[Any, DummyLM]:
    """A ReAct that calls ``tool`` once, and the LM that makes it do so."""
    name = tool.__name__
    call = {"next_thought": "ask", "next_tool_name": name, "next_tool_args": '{"n": 1}'}
    finish = {"next_thought": "enough", "next_tool_name": "finish", "next_tool_args": "{}"}
    lm = DummyLM([call, finish, {"reasoning": "so", "answer": "4"}])
    return dspy.ReAct("question -> answer", tools=[tool]), lm


async def test_six_agents_with_a_blocking_tool_wait_at_the_same_time() -> None:
    together = threading.Barrier(6)

    def meets(n: int) -> str:
        """Wait for the others."""
        together.wait(20)
        return "met"

    async def ask() -> Any:
        agent, lm = agent_of(meets)
        with dspy.context(lm=lm):
            return await asyncify(agent)(question="?")

    answers = await asyncio.gather(*[ask() for _ in range(6)])
    assert [a.trajectory["observation_0"] for a in answers] == ["met"] * 6


async def test_the_status_message_comes_while_the_tool_is_at_work() -> None:
    seen = threading.Event()

    def waits(n: int) -> bool:
        """Wait until the reader has heard of it."""
        return seen.wait(20)

    agent, lm = agent_of(waits)
    with dspy.context(lm=lm):
        from dspy_live import StatusMessageProvider

        async for item in streamify(agent, status_message_provider=StatusMessageProvider())(question="?"):
            if getattr(item, "message", "") == "Calling tool waits...":
                seen.set()
            elif isinstance(item, dspy.Prediction):
                assert item.trajectory["observation_0"] is True


async def test_the_tool_has_the_callers_context_and_settings_and_may_set_variables_for_the_next() -> None:
    def signs_in(n: int) -> Any:
        """Sign in."""
        emit("at work", threading.get_ident())
        before = user.get()
        user.set("ada")
        return before, dspy.settings.temperature_of_mine

    def asks(n: int) -> str:
        """Say who it is."""
        return user.get()

    user.set("guest")
    with dspy.context(temperature_of_mine=7):
        items: list[Any] = [i async for i in streamify(Uses(signs_in, asks), events=True)(question="?")]
    assert items[-1].answer == [("guest", 7), "ada"]
    threads = [i.data for i in items if isinstance(i, Custom)]
    assert len(threads) == 1 != threading.get_ident()
    assert threads != [threading.get_ident()]
    assert user.get() == "guest"


async def test_a_predictor_inside_the_tool_counts(sim: Sim) -> None:
    def summarizes(n: int) -> str:
        """Summarize."""
        return str(dspy.Predict("text -> summary")(text="a").summary)

    with dspy.context(lm=sim.lm()), track_usage() as tracker:
        prediction = await asyncify(Uses(summarizes))(question="?")
    assert prediction.answer[0]
    assert tracker.get_total_tokens()[MODEL]["total_tokens"] > 0


async def test_a_run_that_is_stopped_ends_with_its_tool_and_calls_no_other() -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), list[str]()

    def works(n: int) -> None:
        """Work."""
        begun.set()
        go_on.wait(20)
        calls.append("worked")

    def follows(n: int) -> None:
        """Follow."""
        calls.append("followed")

    task = asyncio.ensure_future(asyncify(Uses(works, follows), layers=[])(question="?"))
    await async_until(begun.is_set)
    task.cancel()
    await asyncio.wait([task], timeout=0.05)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == ["worked"]


async def test_a_program_that_swallows_its_cancellation_calls_no_other_tool() -> None:
    calls: list[str] = []

    class Stubborn(Uses):
        async def aforward(self, question: str) -> Any:
            while True:
                try:
                    await self.tools[0].acall(n=1)
                except (Exception, asyncio.CancelledError):
                    calls.append("swallowed")

    waits = threading.Event()
    with pytest.raises(DeadlineExceeded):
        await asyncify(Stubborn(lambda n: waits.wait(0.01)), timeout=0.1)(question="?")
    assert len(calls) <= 1


async def test_a_tool_that_the_program_has_left_behind_ends_before_the_run() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def works(n: int) -> None:
        """Work."""
        begun.set()
        go_on.wait(20)
        ended.set()

    class Leaves(Uses):
        async def aforward(self, question: str) -> Any:
            self.task = asyncio.ensure_future(self.tools[0].acall(n=1))
            await async_until(begun.is_set)
            return dspy.Prediction(answer="early")

    program = Leaves(works)
    task = asyncio.ensure_future(asyncify(program, layers=[])(question="?"))
    await async_until(begun.is_set)
    await asyncio.wait([task], timeout=0.05)
    assert not task.done()
    go_on.set()
    assert (await task).answer == "early"
    assert ended.is_set()
    await asyncio.wait([program.task])


@pytest.mark.parametrize("execution", ["native", "thread"])
async def test_the_lm_is_shown_the_tools_failing_line(execution: Any) -> None:
    """ReAct shows five frames, the outermost first."""

    def fails(n: int) -> None:
        """Fail."""
        raise LookupError("no such number")

    agent, lm = agent_of(fails)
    with dspy.context(lm=lm):
        prediction = await asyncify(agent, execution=execution)(question="?")
    shown = prediction.trajectory["observation_0"]
    assert 'raise LookupError("no such number")' in shown
    assert shown.count("  File ") == 4


async def test_a_wrong_argument_is_an_observation_as_before() -> None:
    def counts(n: int) -> int:
        """Count."""
        return n

    agent, lm = agent_of(counts)
    agent.tools["counts"].args["n"]["type"] = "string"
    with dspy.context(lm=lm):
        prediction = await asyncify(agent)(question="?")
    assert "Arg n is invalid" in prediction.trajectory["observation_0"]


async def where(n: int) -> int:
    """Say which thread it is in."""
    return threading.get_ident()


class Where:
    """An object with an asynchronous call, as clients of tool servers are."""

    async def __call__(self, n: int) -> int:
        return threading.get_ident()


@pytest.mark.parametrize("function", [where, Where(), functools.partial(where)])
async def test_an_asynchronous_tool_is_awaited_on_the_loop(function: Any) -> None:
    class Awaits(Uses):
        def __init__(self) -> None:
            super().__init__()
            self.tools = [dspy.Tool(function, name="where")]

    assert (await asyncify(Awaits())(question="?")).answer == [threading.get_ident()]


async def test_a_function_that_returns_a_coroutine_is_awaited_on_the_loop() -> None:
    assert (await asyncify(Uses(lambda n: where(n)))(question="?")).answer == [threading.get_ident()]


async def test_outside_of_a_run_it_is_dspys_own() -> None:
    install()
    install()
    assert await dspy.Tool(lambda n: threading.get_ident(), name="where").acall(n=1) == threading.get_ident()


def test_in_a_run_that_lives_on_the_background_loop_too() -> None:
    program = syncify(Uses(lambda n: threading.current_thread().name))
    asked = asyncify(program, execution="thread")
    assert "dspy-live-runs" not in asyncio.run(asked(question="?")).answer


async def test_callbacks_are_told_of_the_users_own_tool() -> None:
    told: list[Any] = []

    class Listens(dspy.utils.BaseCallback):  # type: ignore[misc]
        def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            told.append((instance, inputs))

        def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
            told.append((outputs, exception))

    program = Uses(lambda n: n + 1)
    with dspy.context(callbacks=[Listens()]):
        await asyncify(program)(question="?")
    assert told == [(program.tools[0], {"kwargs": {"n": 1}}), (2, None)]
    assert told[0][0] is program.tools[0]


def test_dspys_tool_has_the_parts_that_are_used() -> None:
    """``acall`` takes the tool's arguments by name, reads them with ``_validate_and_parse_args`` and calls ``func``."""
    install()
    original = dspy.Tool.acall.__wrapped__
    assert list(inspect.signature(original).parameters) == ["self", "kwargs"]
    assert inspect.iscoroutinefunction(original)
    body = inspect.unwrap(original).__code__
    assert {"_validate_and_parse_args", "func", "iscoroutine"} <= set(body.co_names)
