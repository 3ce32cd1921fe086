"""``Tool`` in place of ``dspy.Tool``: a synchronous one never blocks the loop, an asynchronous one works anywhere."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import dspy
import pydantic
import pytest
from tests.programs.conftest import Sim
from tests.support.until import async_until

from dspy_live import Tool, asyncify, emit, streamify
from dspy_live.core.errors import DeadlineExceeded
from dspy_live.core.events import Custom
from dspy_live.core.events import Tool as ToolEvent

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def slow(n: int) -> str:
    """Take a moment."""
    time.sleep(0.2)
    return f"{n} {threading.current_thread() is threading.main_thread()} {tenant.get()}"


async def later(n: int) -> int:
    """Wait a moment."""
    await asyncio.sleep(0.01)
    return n + 1


def test_it_is_a_dspy_tool() -> None:
    ours, theirs = Tool(slow, name="s", desc="d"), dspy.Tool(slow, name="s", desc="d")
    assert isinstance(ours, dspy.Tool)
    assert (ours.name, ours.desc, ours.args) == (theirs.name, theirs.desc, theirs.args)
    assert ours.format_as_litellm_function_call() == theirs.format_as_litellm_function_call()
    with pytest.raises(ValueError, match="Arg n is invalid"):
        ours(n="many")
    with pytest.raises(ValueError, match="Arg m is not in the tool's args"):
        ours(m=1)


class Place(pydantic.BaseModel):
    city: str


def where(place: Place) -> str:
    """Say where."""
    return place.city


def test_arguments_are_parsed() -> None:
    assert Tool(where)(place={"city": "Bern"}) == "Bern"


async def test_a_synchronous_tool_does_not_block_the_loop() -> None:
    """DSPy's does (#10335)."""
    tenant.set("acme")

    async def called(tool_of: Any, seconds: float) -> Any:
        """Whether the loop had a turn meanwhile, whether the tool was on its thread, and whose it was."""
        turn = threading.Event()

        def waits(n: int) -> Any:
            return turn.wait(seconds), threading.current_thread() is threading.main_thread(), tenant.get()

        asyncio.get_running_loop().call_later(0.02, turn.set)
        return await tool_of(waits).acall(n=7)

    assert await called(Tool, 30) == (True, False, "acme")
    assert await called(dspy.Tool, 0.2) == (False, True, "acme")


def test_an_asynchronous_tool_from_synchronous_code() -> None:
    """DSPy's wants a setting for it, and even then fails beside a running loop."""
    assert Tool(later)(n=1) == 2


async def test_an_asynchronous_tool_from_synchronous_code_beside_a_loop() -> None:
    assert Tool(later)(n=1) == 2
    with dspy.context(allow_tool_async_sync_conversion=True), pytest.raises(ValueError, match="running event loop"):
        dspy.Tool(later)(n=1)


async def test_a_function_that_returns_an_awaitable_and_an_object_with_an_async_call() -> None:
    class Asks:
        async def __call__(self, n: int) -> int:
            return n * 2

    for tool in (Tool(lambda n: later(n), name="l"), Tool(Asks(), name="o")):
        assert await tool.acall(n=4) == tool(n=4)


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
@pytest.mark.parametrize("function", [slow, later])
async def test_in_a_program_of_every_kind(sim: Sim, way: Any, function: Any) -> None:
    def seen(n: int) -> Any:
        """Tell, then go on."""
        emit("tool", {"n": n})
        return function(n)

    class Uses(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = Tool(seen, name="seen")

        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=self.tool(n=1))

        async def aforward(self, question: str) -> Any:
            return dspy.Prediction(answer=await self.tool.acall(n=1))

    with dspy.context(lm=sim.lm()):
        items = [i async for i in streamify(Uses(), execution=way, events=True)(question="?")]
    assert [i.stage for i in items if isinstance(i, ToolEvent)] == ["call", "result"]
    assert [i.data for i in items if isinstance(i, Custom)] == [{"n": 1}]
    assert str(items[-1].answer).startswith("2" if function is later else "1")


async def test_react_with_them(sim: Sim) -> None:
    agent = dspy.ReAct("question -> answer", tools=[Tool(slow), Tool(later)], max_iters=3)
    for way in ("native", "thread", "inline"):
        with dspy.context(lm=sim.lm()):
            assert (await asyncify(agent, execution=way)(question="What?")).answer  # type: ignore[arg-type]


async def test_a_cancelled_call_is_over_when_its_thread_is() -> None:
    """AnyIO leaves a thread behind when a task is cancelled, and would let the next one in."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def works(n: int) -> None:
        """Work."""
        begun.set()
        go_on.wait(60)
        ended.set()

    task = asyncio.create_task(Tool(works).acall(n=1))
    await async_until(begun.is_set)
    task.cancel()
    await asyncio.wait([task], timeout=0.1)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_stopped_run_calls_no_further_tool() -> None:
    calls: list[int] = []

    def counts(n: int) -> int:
        """Count."""
        calls.append(n)
        time.sleep(0.03)
        return n

    class Loops(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = Tool(counts)

        def forward(self, question: str) -> None:
            for n in range(1000):
                try:
                    self.tool(n=n)
                except Exception:
                    continue

    with pytest.raises(DeadlineExceeded):
        await asyncify(Loops(), execution="thread", timeout=0.1)(question="?")
    seen = len(calls)
    await asyncio.sleep(0.1)
    assert seen <= 5
    assert len(calls) <= seen + 1


def test_tools_that_call_tools_do_not_wait_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from dspy_live import syncify
    from dspy_live.programs.run import tool_thread as module

    # Both on the run loop, whose one place the outer tool has taken.
    monkeypatch.setattr(module, "MAX_TOOL_THREADS", 1)
    module._limiters.clear()

    class Calls(dspy.Module):  # type: ignore[misc]
        def __init__(self, tool: Any) -> None:
            super().__init__()
            self.tool = tool

        async def aforward(self) -> Any:
            return await self.tool.acall(n=3)

    inner = syncify(Calls(Tool(slow)))
    outer = syncify(Calls(Tool(lambda n: inner(), name="outer")))
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(outer()), daemon=True)
    thread.start()
    thread.join(30)
    module._limiters.clear()
    assert results == ["3 False nobody"]
