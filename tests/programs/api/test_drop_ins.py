"""``syncify``, ``track_usage`` and ``streaming_response`` in place of DSPy's own."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import dspy
import pydantic
import pytest
from dspy.streaming import StatusMessage
from tests.programs.conftest import MODEL, Sim
from tests.support.until import async_until

import dspy_live
from dspy_live import StatusMessageProvider, asyncify, emit, streamify, streaming_response, syncify, track_usage
from dspy_live.simulator import Faults

QA = "question -> answer"


class Async(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(QA)

    async def aforward(self, question: str) -> Any:
        await asyncio.sleep(0)
        return await self.ask.acall(question=question)


def test_every_drop_in_is_exported() -> None:
    for name in ("Parallel", "Tool", "syncify", "track_usage", "streaming_response"):
        assert callable(getattr(dspy_live, name))
        assert name in dspy_live.__all__


# syncify


@pytest.mark.parametrize("in_place", [True, False])
def test_an_async_program_without_a_loop(sim: Sim, in_place: bool) -> None:
    program = syncify(Async(), in_place=in_place)
    with dspy.context(lm=sim.lm()):
        assert program(question="What is Rust?").answer
        assert program.deepcopy()(question="What is Rust?").answer


@pytest.mark.parametrize("in_place", [True, False])
async def test_an_async_program_beside_a_running_loop(sim: Sim, in_place: bool) -> None:
    """DSPy's ``syncify`` patches asyncio with ``nest_asyncio`` for this; where that is missing, it fails."""
    before = (asyncio.run, asyncio.Task, asyncio.get_event_loop)
    with dspy.context(lm=sim.lm()):
        assert syncify(Async(), in_place=in_place)(question="What is Rust?").answer
    assert (asyncio.run, asyncio.Task, asyncio.get_event_loop) == before


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_in_a_program_of_every_kind(sim: Sim, way: Any) -> None:
    class Outer(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = syncify(Async())

        def forward(self, question: str) -> Any:
            return self.inner(question=question)

        async def aforward(self, question: str) -> Any:
            return await self.inner.acall(question=question)

    with dspy.context(lm=sim.lm()):
        items = [i async for i in streamify(Outer(), execution=way)(question="What is Rust?")]
    assert "".join(i for i in items if isinstance(i, str)) == items[-1].answer


def test_its_failures_are_the_programs_own(sim: Sim) -> None:
    class Fails(dspy.Module):  # type: ignore[misc]
        async def aforward(self, question: str) -> Any:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        syncify(Fails())(question="?")
    with pytest.raises(TypeError, match="has no aforward"):
        syncify(dspy.Module())


# track_usage


def total(tracker: Any) -> int:
    return sum(counts["total_tokens"] for counts in tracker.get_total_tokens().values())


def test_nested_blocks_count_in_both_at_once(sim: Sim) -> None:
    """DSPy's outer block hears of it only when the inner one ends."""
    ask = dspy.Predict(QA)
    with dspy.context(lm=sim.lm()), track_usage() as outer:
        ask(question="one")
        first = total(outer)
        with track_usage() as inner:
            ask(question="one")
            assert total(inner) == first
            assert total(outer) == 2 * first
        with dspy.track_usage() as theirs:
            ask(question="one")
        assert total(theirs) == first
    assert total(outer) == 3 * first > 0


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_around_asyncify_and_streams(sim: Sim, way: Any) -> None:
    with dspy.context(lm=sim.lm()):
        with track_usage() as tracker:
            await asyncify(dspy.Predict(QA), execution=way)(question="one")
        once = total(tracker)
        with track_usage() as tracker:
            async for _ in streamify(dspy.Predict(QA), execution=way)(question="one"):
                pass
    assert total(tracker) == once > 0


async def test_blocks_at_once_do_not_mix(sim: Sim) -> None:
    async def one(count: int) -> int:
        with track_usage() as tracker:
            for _ in range(count):
                await dspy.Predict(QA).acall(question="one")
        return total(tracker)

    with dspy.context(lm=sim.lm()):
        totals = await asyncio.gather(*(one(n) for n in (1, 2, 3)))
    assert totals == [totals[0] * n for n in (1, 2, 3)]


def test_threads_of_dspy_are_counted_and_nothing_is_lost(sim: Sim) -> None:
    from dspy_live.programs.api.track_usage import SharedUsageTracker

    shared = SharedUsageTracker()
    threads = [
        threading.Thread(target=lambda: [shared.add_usage("m", {"total_tokens": 1}) for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.get_total_tokens() == {"m": {"total_tokens": 2000}}


def test_a_cached_answer_uses_nothing(sim: Sim) -> None:
    with dspy.context(lm=sim.lm(cache=True)), track_usage() as tracker:
        dspy.Predict(QA)(question="What is counted once?")
        once = total(tracker)
        dspy.Predict(QA)(question="What is counted once?")
    assert total(tracker) == once > 0
    assert list(tracker.get_total_tokens()) == [MODEL]


# streaming_response


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    assert all(line.startswith("data: ") and line.endswith("\n\n") for line in lines)
    assert lines[-1] == "data: [DONE]\n\n"
    return [json.loads(line[6:]) for line in lines[:-1]]


class Answer(pydantic.BaseModel):
    city: str
    size: int


class Typed(dspy.Signature):  # type: ignore[misc]
    question: str = dspy.InputField()
    text: str = dspy.OutputField()
    places: list[Answer] = dspy.OutputField()


async def test_every_item_has_a_form(sim: Sim) -> None:
    """DSPy's fails on its own status and token items (#8213), and on typed predictions."""

    class Program(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(Typed)

        def forward(self, question: str) -> Any:
            emit("seen", {"question": question})
            return self.ask(question=question)

    class Tells(StatusMessageProvider):
        def get_status_message(self, module_name: str, status: str) -> str:
            return f"{module_name} {status}"

    sim.server.set_faults(Faults(schedule=("missing_field",)))
    with dspy.context(lm=sim.lm()):
        stream = streamify(Program(), status_message_provider=Tells(), events=True)
        forms = parsed([line async for line in streaming_response(stream(question="Where?"))])
    kinds = {next(iter(form)) for form in forms}
    assert {"started", "status", "chunk", "partial", "restart", "custom", "usage", "prediction"} <= kinds
    assert forms[-1]["prediction"]["places"][0].keys() == {"city", "size"}
    assert {"status": "Program starting"} in forms
    chunk = json.loads(next(form["chunk"] for form in forms if "chunk" in form))
    assert chunk["choices"][0]["delta"]["content"]
    assert chunk["signature_field_name"] == "text"


async def test_dspys_own_items_and_plain_text_are_sent_as_they_are() -> None:
    async def items() -> Any:
        yield StatusMessage("working")
        yield dspy.streaming.StreamResponse("self", "answer", "hi", False)
        yield "data: {}\n\n"
        yield {"any": {1, 2}}
        yield dspy.Prediction(answer="hi")

    lines = [line async for line in streaming_response(items())]
    assert lines[2] == "data: {}\n\n"
    forms = parsed(lines)
    assert forms[0] == {"status": "working"}
    assert json.loads(forms[1]["chunk"])["chunk"] == "hi"
    assert forms[3] == {"output": {"any": [1, 2]}}
    assert forms[4] == {"prediction": {"answer": "hi"}}


async def test_leaving_it_stops_the_program(endless: Sim) -> None:
    with dspy.context(lm=endless.lm()):
        lines = streaming_response(streamify(dspy.Predict(QA))(question="What?"))
        await anext(lines)
        await lines.aclose()
        await async_until(lambda: endless.server.stats.disconnects == 1)
