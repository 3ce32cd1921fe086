"""A program that awaits another one through ``asyncify``: one run to its reader, its status and its budgets."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import dspy
import pytest
from dspy.streaming import StatusMessage
from tests.programs.conftest import Sim
from tests.programs.programs import Rag
from tests.support.leap import leap
from tests.support.until import async_until

from dspy_live import Runtime, StatusMessageProvider, abatch, asyncify, batch, streamify, syncify
from dspy_live.cli.screens.run_screens import Terminal
from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, DeadlineExceeded, StreamBroken
from dspy_live.core.events import Tool, Usage
from dspy_live.core.observer import RunRecord
from dspy_live.core.sink import DISCARD
from dspy_live.core.usage import LMRecord
from dspy_live.layers import Budget
from dspy_live.observe.tracker import UsageTracker
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.books.account import process_account
from dspy_live.runtime.scope import Scope

QA = "question -> answer"
WAYS = ("native", "thread", "inline")


class Outer(dspy.Module):  # type: ignore[misc]
    """Asks itself, and twice, at once, another program."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.first = dspy.Predict(QA)
        self.inner = inner

    async def aforward(self, question: str) -> Any:
        first = await self.first.acall(question=question)
        rest = await asyncio.gather(*(self.inner(question=f"{question} {i}") for i in range(2)))
        return dspy.Prediction(first=first.answer, rest=[r.toDict() for r in rest])

    def forward(self, question: str) -> Any:
        return syncify(self, in_place=False)(question=question)


class Hearing:
    """An observer that keeps what is booked."""

    def __init__(self, records: list[LMRecord]) -> None:
        self.lm_call_ended = records.append

    def run_started(self, call: Call) -> None: ...

    def run_ended(self, record: RunRecord) -> None: ...


def texts(items: list[Any]) -> dict[tuple[int, str, str], str]:
    said: dict[tuple[int, str, str], str] = {}
    for item in items:
        if isinstance(item, str):
            key = (item.lm_call, item.predict_name, item.signature_field_name)  # type: ignore[attr-defined]
            said[key] = said.get(key, "") + item
    return said


@pytest.mark.parametrize("outer", WAYS)
@pytest.mark.parametrize("inner", ["thread", "inline"])
async def test_its_words_stream_under_its_name(sim: Sim, outer: Any, inner: Any) -> None:
    program = Outer(asyncify(Rag(), execution=inner))
    with dspy.context(lm=sim.lm()):
        items = [i async for i in streamify(program, execution=outer, events=True)(question="What?")]
    said = texts(items)
    assert {k[1] for k in said} == {"first", "Rag.answer.predict", "Rag.sum"}
    assert len({k[0] for k in said}) == 5
    summaries = [text for key, text in said.items() if key[2] == "summary"]
    assert sorted(summaries) == sorted(r["summary"] for r in items[-1].rest)
    assert [text for key, text in said.items() if key[1] == "first"] == [items[-1].first]
    assert sum(isinstance(i, Usage) for i in items) == 5


async def test_a_module_of_the_outer_program_keeps_its_path(sim: Sim) -> None:
    class Wraps(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rag = Rag()
            self.call = asyncify(self.rag)

        async def aforward(self, question: str) -> Any:
            return await self.call(question=question)

    with dspy.context(lm=sim.lm()):
        items = [i async for i in streamify(Wraps())(question="What?")]
    assert {k[1] for k in texts(items)} == {"rag.answer.predict", "rag.sum"}


async def test_without_a_reader_nothing_streams(sim: Sim) -> None:
    sim.server.keep_requests = True
    with dspy.context(lm=sim.lm()):
        await asyncify(Outer(asyncify(Rag())))(question="What?")
    assert not any(body.get("stream") for body in sim.server.requests)


async def test_its_usage_counts_and_budgets_hold(sim: Sim) -> None:
    program = Outer(asyncify(dspy.Predict(QA)))
    with dspy.context(lm=sim.lm()):
        with UsageTracker() as usage:
            await asyncify(program)(question="What?")
        assert usage.get_stats()["api_calls"] == 3
        requests = sim.server.stats.requests
        with pytest.raises(BudgetExceeded):
            await asyncify(program, runtime=Runtime(layers=[Budget(max_calls=1)]))(question="What?")
        assert sim.server.stats.requests == requests + 1


async def test_its_status_and_tools_are_told(sim: Sim) -> None:
    class Tells(StatusMessageProvider):
        def get_status_message(self, module_name: str, status: str) -> str:
            return f"{module_name} {status}"

    def look(term: str) -> str:
        """Look it up."""
        return term

    agent = asyncify(dspy.ReAct(QA, tools=[look], max_iters=2))
    with dspy.context(lm=sim.lm()):
        stream = streamify(Outer(agent), status_message_provider=Tells(), events=True)
        items = [i async for i in stream(question="What?")]
    told = [i.message for i in items if isinstance(i, StatusMessage)]
    assert told.count("ReAct starting") == told.count("ReAct complete") == 2
    assert told.count("Outer starting") == 1
    tools = [i for i in items if isinstance(i, Tool) and i.name == "look"]
    assert [t.stage for t in tools].count("call") == [t.stage for t in tools].count("result") >= 2


@pytest.mark.parametrize("way", WAYS)
async def test_the_end_of_the_outer_one_ends_it(endless: Sim, way: Any) -> None:
    endless.server.next(tps=None, length=5)  # the outer program's own question, before it asks the inner one
    program = Outer(asyncify(Rag()))
    with dspy.context(lm=endless.lm(stream="always")):
        task = asyncio.create_task(asyncify(program, execution=way, timeout=30)(question="What?"))
        await async_until(lambda: endless.server.stats.active == 2)
        leap(30)
        with pytest.raises(DeadlineExceeded):
            await task
        await async_until(lambda: endless.server.stats.active == 0)
    assert (endless.server.stats.finished, endless.server.stats.disconnects) == (1, 2)


async def test_its_own_timeout_is_its_own(sim: Sim) -> None:
    sim.server.set_options(ttft=60.0)
    inner = asyncify(dspy.Predict(QA), timeout=0.1)

    class Patient(dspy.Module):  # type: ignore[misc]
        async def aforward(self, question: str) -> Any:
            try:
                await inner(question=question)
            except DeadlineExceeded:
                return dspy.Prediction(answer="went on")

    with dspy.context(lm=sim.lm()):
        assert (await asyncify(Patient(), timeout=30)(question="?")).answer == "went on"


async def test_a_terminal_that_has_printed_words_ends_the_whole_run(sim: Sim) -> None:
    program = Outer(asyncify(dspy.Predict("question -> answer, score: int")))
    service = ProgramService(program)
    out = io.StringIO()
    sim.server.next()
    sim.server.next(fault="cut", after=14, tps=300)
    with dspy.context(lm=sim.lm()), pytest.raises(StreamBroken):
        with Scope() as scope:
            await service(Call({"question": "?"}), Terminal(scope, service.schema, out))
    assert "answer: " in out.getvalue()


async def test_at_once_they_do_not_mix(sim: Sim) -> None:
    stream = streamify(Outer(asyncify(dspy.Predict(QA))))

    async def one(i: int) -> None:
        items = [item async for item in stream(question=f"Number {i}?")]
        said = sorted(texts(items).values())
        assert said == sorted([items[-1].first, *(r["answer"] for r in items[-1].rest)])

    with dspy.context(lm=sim.lm()):
        await asyncio.gather(*(one(i) for i in range(10)))


AWAITED = ("asyncify", "abatch", "streamify")
BLOCKING = ("batch", "sync stream", "asyncio.run")


@pytest.mark.parametrize(
    ("door", "outer"), [*((door, way) for door in AWAITED for way in WAYS), *((door, "thread") for door in BLOCKING)]
)
async def test_the_meters_of_a_run_meter_the_runs_inside(door: str, outer: Any, sim: Sim) -> None:
    """A program that asks another one through a batch or a stream of its own spent what no key's budget knew of."""
    ask = dspy.Predict(QA)

    class Program(dspy.Module):  # type: ignore[misc]
        async def aforward(self, question: str) -> Any:
            if door == "asyncify":
                await asyncio.gather(*(asyncify(ask)(question=str(n)) for n in range(3)))
            elif door == "abatch":
                await abatch(ask, [{"question": str(n)} for n in range(3)], progress=False)
            elif door == "streamify":
                for n in range(3):
                    assert [item async for item in streamify(ask)(question=str(n))]
            else:
                self.blocking()
            return dspy.Prediction(answer="")

        def forward(self, question: str) -> Any:
            if door in AWAITED:
                return syncify(self, in_place=False)(question=question)
            self.blocking()
            return dspy.Prediction(answer="")

        def blocking(self) -> None:
            if door == "batch":
                batch(ask, [{"question": str(n)} for n in range(3)], progress=False)
            elif door == "sync stream":
                for n in range(3):
                    assert list(streamify(ask, async_streaming=False)(question=str(n)))
            else:
                for n in range(3):
                    asyncio.run(asyncify(ask)(question=str(n)))

    budget = Budget(max_calls=100)
    heard: list[LMRecord] = []
    stop = process_account().observe(Hearing(heard))
    try:
        service = ProgramService(Program(), execution=outer, runtime=Runtime(layers=[budget])).layered()
        with dspy.context(lm=sim.lm()):
            await service(Call({"question": "Why?"}, key="team"), DISCARD)
    finally:
        stop()
    assert budget.spent["calls"] == 3
    assert [record.key for record in heard] == ["team"] * 3
