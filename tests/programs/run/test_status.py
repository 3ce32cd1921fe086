"""Status messages: in order, on time, from anywhere, and never in the way."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy.streaming import StatusMessage
from tests.programs.conftest import HeldSim, Sim
from tests.programs.programs import Gather, InParallel, Rag

from dspy_live import StatusMessageProvider, Tool, asyncify, streamify
from dspy_live.core.events import Custom
from dspy_live.core.events import Tool as ToolEvent
from dspy_live.runtime.execution.blocked import BlockingCodeWarning

QA = "question -> answer"
WAYS = ("native", "thread", "inline")


class Simple(StatusMessageProvider):
    def get_status_message(self, module_name: str, status: str) -> str:
        return f"{module_name} {status}"

    def tool_start_status_message(self, instance: Any, inputs: Any) -> None:
        return None

    def tool_end_status_message(self, outputs: Any) -> None:
        return None


class Hooks(StatusMessageProvider):
    def module_start_status_message(self, instance: Any, inputs: Any) -> str:
        return f"module {type(instance).__name__} {sorted(inputs['kwargs'])}"

    def module_end_status_message(self, outputs: Any) -> str:
        return f"module gave {type(outputs).__name__}"

    def lm_start_status_message(self, instance: Any, inputs: Any) -> str:
        return f"lm {instance.model}"

    def lm_end_status_message(self, outputs: Any) -> str:
        return f"lm gave {len(outputs)}"

    def tool_start_status_message(self, instance: Any, inputs: Any) -> str:
        return f"tool {instance.name} {inputs['kwargs']}"

    def tool_end_status_message(self, outputs: Any) -> str:
        return f"tool gave {outputs}"


class TheirHooks(dspy.streaming.StatusMessageProvider):  # type: ignore[misc]
    """DSPy's own class, as existing code has it."""

    def lm_start_status_message(self, instance: Any, inputs: Any) -> str:
        return f"lm {instance.model}"


def messages(items: list[Any]) -> list[str]:
    return [item.message for item in items if isinstance(item, StatusMessage)]


async def all_of(program: Any, provider: Any, **options: Any) -> list[Any]:
    stream = streamify(program, status_message_provider=provider, **options)
    return [item async for item in stream(question="What is Rust?")]


async def test_the_simple_style_in_order(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        items = await all_of(Rag(), Simple(), execution="thread")
    inner = ["starting", "processing", "complete"]
    assert messages(items) == [
        "Rag starting",
        "ChainOfThought starting",
        "Predict starting",
        "Rag processing",
        "ChainOfThought processing",
        "Predict processing",
        "Predict complete",
        "ChainOfThought complete",
        *[f"Predict {stage}" for stage in inner],
        "Rag complete",
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_the_six_hooks_in_order(sim: Sim, way: Any, asynchronous: bool) -> None:
    def double(n: int) -> int:
        """Double it."""
        return 2 * n

    async def adouble(n: int) -> int:
        """Double it."""
        await asyncio.sleep(0)
        return 2 * n

    class Uses(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = Tool(adouble if asynchronous else double, name="double")
            self.ask = dspy.Predict(QA)

        def forward(self, question: str) -> Any:
            return self.ask(question=f"{question} {self.tool(n=2)}")

        async def aforward(self, question: str) -> Any:
            return await self.ask.acall(question=f"{question} {await self.tool.acall(n=2)}")

    lm = sim.lm()
    with dspy.context(lm=lm):
        items = await all_of(Uses(), Hooks(), execution=way)
    assert messages(items) == [
        "module Uses ['question']",
        "tool double {'n': 2}",
        "tool gave 4",
        "module Predict ['question']",
        f"lm {lm.model}",
        "lm gave 1",
        "module gave Prediction",
        "module gave Prediction",
    ]
    at = [i for i, item in enumerate(items) if isinstance(item, str)]
    begins = next(i for i, item in enumerate(items) if getattr(item, "message", "") == f"lm {lm.model}")
    ends = next(i for i, item in enumerate(items) if getattr(item, "message", "") == "lm gave 1")
    assert begins < at[0] <= at[-1] < ends


async def test_dspys_own_provider_class(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        items = await all_of(dspy.Predict(QA), TheirHooks())
    assert messages(items) == ["lm openai/gpt-4o-mini"]


@pytest.mark.parametrize("make", [Gather, InParallel])
async def test_from_tasks_and_threads(sim: Sim, make: Any) -> None:
    """In dspy.Parallel DSPy's status messages fail (#9154)."""
    with dspy.context(lm=sim.lm()):
        items = await all_of(make(), Simple())
    count = len(items[-1].answers)
    seen = messages(items)
    for stage in ("starting", "processing", "complete"):
        assert seen.count(f"Predict {stage}") == count
    assert seen[0] == f"{make.__name__} starting"
    assert seen.count(f"{make.__name__} processing") == 1
    assert seen[-1] == f"{make.__name__} complete"


async def test_they_come_while_the_program_works(held: HeldSim) -> None:
    with dspy.context(lm=held.lm()):
        stream = streamify(dspy.Predict(QA), status_message_provider=Simple())(question="?")
        first = await anext(stream)
        assert first.message == "Predict starting"
        held.server.release()
        assert [item async for item in stream][-1].answer


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("raises", [ValueError("mine"), KeyError("mine")])
async def test_an_error_in_the_users_provider_is_logged_and_fails_nothing(
    sim: Sim, way: Any, raises: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(StatusMessageProvider):
        def get_status_message(self, module_name: str, status: str) -> str:
            raise raises

        def lm_start_status_message(self, instance: Any, inputs: Any) -> Any:
            raise raises

        def lm_end_status_message(self, outputs: Any) -> str:
            return "the lm has answered"

    with dspy.context(lm=sim.lm()), caplog.at_level(logging.WARNING, "dspy_live.status"):
        items = await all_of(dspy.Predict(QA), Broken(), execution=way)
    assert messages(items) == ["the lm has answered"]
    assert items[-1].answer
    logged = [record.getMessage() for record in caplog.records if record.name == "dspy_live.status"]
    assert any("Broken.get_status_message failed" in line for line in logged)
    assert any("Broken.lm_start_status_message failed" in line for line in logged)


async def test_an_asynchronous_hook_is_refused_in_the_log(sim: Sim, caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(StatusMessageProvider):
        async def get_status_message(self, module_name: str, status: str) -> str:  # type: ignore[override]
            return "never"

    with dspy.context(lm=sim.lm()), caplog.at_level(logging.WARNING, "dspy_live.status"):
        items = await all_of(dspy.Predict(QA), Wrong())
    assert messages(items) == []
    assert "it is asynchronous" in caplog.text


async def test_a_failing_module_says_so(sim: Sim) -> None:
    class Fails(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            raise KeyError("mine")

    items: list[Any] = []

    async def read() -> None:
        async for item in streamify(Fails(), status_message_provider=Simple())(question="?"):
            items.append(item)

    with dspy.context(lm=sim.lm()), pytest.raises(KeyError):
        await read()
    assert messages(items) == ["Fails starting", "Fails failed"]


async def test_every_run_of_a_module_has_its_own_messages(sim: Sim) -> None:
    class Twice(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        def forward(self, question: str) -> Any:
            self.ask(question=question)
            return self.ask(question=question + "!")

    with dspy.context(lm=sim.lm()):
        items = await all_of(Twice(), Simple())
    assert [m for m in messages(items) if m.startswith("Predict")] == [
        f"Predict {stage}" for _ in range(2) for stage in ("starting", "processing", "complete")
    ]


@pytest.mark.parametrize("way", ["native", "thread"])
async def test_a_thousand_unread_messages_hold_no_run_up(sim: Sim, way: Any) -> None:
    """DSPy deadlocks at the 17th unread one when tools are async (#8934)."""
    done = threading.Event()

    async def step(n: int) -> int:
        """Do a step."""
        return n

    class Busy(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = Tool(step)

        async def aforward(self, question: str) -> Any:
            for i in range(500):
                await self.tool.acall(n=i)
            done.set()
            return dspy.Prediction(answer=question)

        def forward(self, question: str) -> Any:
            for i in range(500):
                self.tool(n=i)
            done.set()
            return dspy.Prediction(answer=question)

    with dspy.context(lm=sim.lm()):
        stream = streamify(
            Busy(), status_message_provider=StatusMessageProvider(), buffer=1, execution=way
        )(question="q")  # fmt: skip
        first = await anext(stream)
        assert await asyncio.to_thread(done.wait, 30)
        items = [first, *[item async for item in stream]]
    assert len(messages(items)) == 1000
    assert items[-1].answer == "q"


async def test_tool_events_name_their_module_and_failures(sim: Sim) -> None:
    def fails(n: int) -> int:
        """Fail."""
        raise KeyError(n)

    class Uses(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tools = {"fails": dspy.Tool(fails)}

        def forward(self, question: str) -> Any:
            try:
                self.tools["fails"](n=1)
            except KeyError:
                return dspy.Prediction(answer="caught")

    with dspy.context(lm=sim.lm()):
        items = [i async for i in streamify(Uses(), events=True)(question="?")]
    tools = [i for i in items if isinstance(i, ToolEvent)]
    assert [(t.stage, t.module) for t in tools] == [("call", "self"), ("error", "self")]
    assert tools[0].arguments == {"n": 1}
    assert tools[1].result == "KeyError: 1"
    assert tools[1].duration_ms is not None
    assert items[-1].answer == "caught"


async def test_a_run_inside_a_run_tells_its_own(sim: Sim) -> None:
    inner = streamify(dspy.Predict(QA), status_message_provider=Simple())

    class Outer(dspy.Module):  # type: ignore[misc]
        async def aforward(self, question: str) -> Any:
            from dspy_live import emit

            items = [i async for i in inner(question=question)]
            emit("inner", messages(items))
            return items[-1]

    with dspy.context(lm=sim.lm()):
        items = await all_of(Outer(), Simple())
    told = ["Predict starting", "Predict processing", "Predict complete"]
    assert [i.data for i in items if isinstance(i, Custom)] == [told]
    assert messages(items) == ["Outer starting", "Outer complete"]


async def test_asyncify_asks_nobody(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        assert (await asyncify(dspy.Predict(QA))(question="?")).answer


@pytest.mark.parametrize("kind", ["called", "theirs", "ours", "async", "later", "quick"])
async def test_a_tool_that_holds_the_loop_up_is_named_once(
    sim: Sim, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One that is called in an ``aforward`` runs on the loop; one that is awaited runs in a thread (#10335)."""
    clock = SimpleNamespace(now=0.0)
    # A clock of the test's own: a machine that stands still must not make the quick one slow.
    monkeypatch.setattr("dspy_live.programs.run.status.time", SimpleNamespace(monotonic=lambda: clock.now))

    def blocks(n: int) -> int:
        """Block."""
        if kind != "quick":
            clock.now += 0.1
        return n

    async def waits(n: int) -> int:
        """Wait."""
        clock.now += 0.1
        await asyncio.sleep(0.01)
        return n

    functions: dict[str, Any] = {"async": waits, "later": lambda n: waits(n)}

    class Uses(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = (Tool if kind == "ours" else dspy.Tool)(functions.get(kind, blocks), name=f"t_{kind}")

        async def aforward(self, question: str) -> Any:
            for n in range(2):
                if kind in ("called", "quick"):
                    self.tool(n=n)
                else:
                    await self.tool.acall(n=n)
            return dspy.Prediction(answer=question)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await asyncify(Uses())(question="?")
    told = [str(w.message) for w in caught if w.category is BlockingCodeWarning]
    assert len(told) == (1 if kind == "called" else 0)
    assert all("'t_called' held the event loop up" in line and "await tool.acall(...)" in line for line in told)


async def test_where_warnings_are_errors_the_tools_end_is_told_all_the_same(sim: Sim) -> None:
    def blocks_here(n: int) -> int:
        """Block."""
        time.sleep(0.1)
        return n

    class Uses(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = dspy.Tool(blocks_here)

        async def aforward(self, question: str) -> Any:
            self.tool(n=1)
            return dspy.Prediction(answer=question)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = streamify(Uses(), status_message_provider=StatusMessageProvider())(question="?")
        items = [item async for item in stream]
    assert [i.message for i in items[:-1]] == [
        "Calling tool blocks_here...",
        "Tool calling finished! Querying the LLM with tool calling results...",
    ]
