"""Layers in a Runtime, around programs and around LMs, over real sockets."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import dspy
import pydantic
import pytest
from tests.programs.conftest import MODEL, HeldSim, Sim
from tests.programs.programs import Rag
from tests.support.until import async_until

from dspy_live import LM, Runtime, asyncify, streamify
from dspy_live.core.errors import CircuitOpen, ConfigurationError, DeadlineExceeded, Overloaded
from dspy_live.core.events import Restart
from dspy_live.layers import Breaker, Cache, Deadline, Fallback, Limit, Retry, SingleFlight
from dspy_live.runtime.books.account import Account
from dspy_live.simulator import Faults, Simulator

QA = "question -> answer"


class Records:
    """Every exchange that was booked."""

    def __init__(self) -> None:
        self.lm: list[Any] = []

    def run_started(self, call: Any) -> None: ...
    def run_ended(self, record: Any) -> None: ...

    def lm_call_ended(self, record: Any) -> None:
        self.lm.append(record)


def runtime(**options: Any) -> tuple[Runtime, Records]:
    account, records = Account(), Records()
    account.observe(records)  # type: ignore[arg-type]
    return Runtime(account=account, **options), records


async def test_a_retry_around_the_lm_takes_the_place_of_num_retries(sim: Sim) -> None:
    rt, records = runtime(lm_layers=[Retry(3)])
    sim.server.set_faults(Faults(schedule=("500",) * 9))
    with dspy.context(lm=sim.lm(num_retries=5)), pytest.raises(dspy.LMServerError):
        await asyncify(dspy.Predict(QA), runtime=rt)(question="What?")
    assert sim.server.stats.requests == 3
    assert [r.error for r in records.lm] == ["LMServerError"] * 3


async def test_tries_of_a_retry_are_booked_one_by_one(sim: Sim) -> None:
    rt, records = runtime(lm_layers=[Retry(4)])
    sim.server.set_faults(Faults(schedule=("503", "cut", None)))
    with dspy.context(lm=sim.lm()):
        items = [i async for i in streamify(dspy.Predict(QA), runtime=rt)(question="What is Rust?")]
    assert items[-1].answer
    assert [r.error for r in records.lm] == ["LMServerError", "LMTransportError", None]
    served = sim.server.stats.models["gpt-4o-mini"]
    assert records.lm[-1].usage.total_tokens == served.prompt_tokens + served.completion_tokens
    assert records.lm[1].usage.estimated or not records.lm[1].usage


async def test_a_fallback_is_booked_as_the_lm_that_answered(sim: Sim) -> None:
    dead = LM("openai/gpt-4o", api_base="http://127.0.0.1:9/v1", api_key="x", cache=False, num_retries=0)
    rt, records = runtime(lm_layers=[Fallback(sim.lm().service())])
    with dspy.context(lm=dead):
        items = [i async for i in streamify(dspy.Predict(QA), runtime=rt, events=True)(question="What is Rust?")]
    assert items[-1].answer
    assert [(r.model, r.error) for r in records.lm] == [("openai/gpt-4o", "LMTransportError"), (MODEL, None)]
    assert not [i for i in items if isinstance(i, Restart)]


async def test_a_fallback_in_mid_stream_restarts(sim: Sim) -> None:
    broken = Simulator(seed=2)
    broken.set_faults(Faults(schedule=("cut",)))
    broken.set_options(after=12)
    rt, _ = runtime(lm_layers=[Fallback(sim.lm().service())])
    with broken.running() as url, dspy.context(lm=LM(MODEL, api_base=url, api_key="x", cache=False, num_retries=0)):
        items = [i async for i in streamify(dspy.Predict(QA), runtime=rt)(question="What is Rust?")]
    restart = next(n for n, i in enumerate(items) if isinstance(i, Restart))
    assert any(isinstance(i, str) for i in items[:restart])
    assert "".join(i for i in items[restart:] if isinstance(i, str)) == items[-1].answer


async def test_a_limit_around_the_lm(held: HeldSim) -> None:
    rt, _ = runtime(lm_layers=[Limit(3, queue=100)])
    call = asyncify(Rag(), runtime=rt)
    with dspy.context(lm=held.lm()):
        calls = asyncio.gather(*(call(question=f"What is {i}?") for i in range(12)))
        await async_until(lambda: len(held.server.held) == 3)
        await asyncio.sleep(0.1)
        assert held.server.arrived == 3
        held.server.release()
        await calls
    assert held.server.arrived == 24


async def test_a_limit_around_the_program_holds_until_the_work_has_ended() -> None:
    release, running = threading.Event(), []

    def blocks(question: str) -> str:
        running.append(question)
        release.wait(60)
        running.remove(question)
        return question

    limit = Limit(1, queue=0)
    call = asyncify(blocks, runtime=Runtime(layers=[limit]))
    task = asyncio.create_task(call(question="a"))
    await async_until(lambda: running == ["a"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running == ["a"]
    with pytest.raises(Overloaded, match="1"):
        await call(question="b")
    release.set()
    await async_until(lambda: limit.statistics().active == 0)
    assert running == []
    assert await call(question="c") == "c"


async def test_a_deadline_around_the_program(endless: Sim) -> None:
    rt, _ = runtime(layers=[Deadline(0.2)])
    with dspy.context(lm=endless.lm()), pytest.raises(DeadlineExceeded):
        await asyncify(Rag(), runtime=rt)(question="What?")


async def test_single_flight_shares_one_lm_call(held: HeldSim) -> None:
    flights = SingleFlight()
    rt, _ = runtime(lm_layers=[flights])
    call = asyncify(dspy.Predict(QA), runtime=rt)
    with dspy.context(lm=held.lm()):
        calls = asyncio.gather(*(call(question="What is the same?") for _ in range(8)))
        await async_until(lambda: len(held.server.held) == 1 and flights.statistics().joined == 7)
        held.server.release()
        answers = await calls
    assert len({a.answer for a in answers}) == 1
    assert held.server.arrived == 1


async def test_a_breaker_leaves_a_failing_lm_alone(sim: Sim) -> None:
    sim.server.set_faults(Faults({"500": 1.0}))
    rt, _ = runtime(lm_layers=[Breaker(failures=0.5, minimum=3)])
    call = asyncify(dspy.Predict(QA), runtime=rt)
    kinds = []
    with dspy.context(lm=sim.lm(num_retries=0)):
        for _ in range(6):
            try:
                await call(question="What?")
            except Exception as exc:
                kinds.append(type(exc))
    assert kinds[-1] is CircuitOpen
    assert sim.server.stats.requests < 6


def test_an_order_that_would_surprise_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="retry"):
        Runtime(lm_layers=[Limit(3), Retry(3)])


class Place(pydantic.BaseModel):
    name: str
    country: str


async def test_a_cached_run_gives_the_programs_own_prediction_again(sim: Sim) -> None:
    """The second call returned None, and so did the last item of a cached stream."""
    cached = Runtime(layers=[Cache()])
    ask = asyncify(dspy.Predict("question -> answer, score: int"), runtime=cached)
    stream = streamify(dspy.Predict("question -> answer, score: int"), runtime=cached)
    with dspy.context(lm=sim.lm()):
        first = await ask(question="What is Rust?")
        again = await ask(question="What is Rust?")
        assert sim.server.stats.requests == 1
        for _ in range(2):
            items = [item async for item in stream(question="What is Rust?")]
    assert sim.server.stats.requests == 2, "a run that nobody streamed has no tokens to give"
    assert isinstance(again, dspy.Prediction)
    assert again.toDict() == first.toDict()
    assert type(again.score) is int
    assert items[-1].toDict() == first.toDict()
    assert "".join(item for item in items if isinstance(item, str)) == first.answer


async def test_a_cached_run_gives_values_of_their_types_and_bare_values_again(sim: Sim) -> None:
    class Where(dspy.Signature):  # type: ignore[misc]
        question: str = dspy.InputField()
        place: Place = dspy.OutputField()

    async def shout(text: str) -> str:
        return text.upper()

    cached = Runtime(layers=[Cache()])
    where, loud = asyncify(dspy.Predict(Where), runtime=cached), asyncify(shout, runtime=cached)
    with dspy.context(lm=sim.lm()):
        assert [type((await where(question="Where?")).place) for _ in range(2)] == [Place, Place]
    assert [await loud("yes") for _ in range(2)] == ["YES", "YES"]
    assert sim.server.stats.requests == 1


@pytest.mark.parametrize("layer", [Cache, SingleFlight])
async def test_two_programs_behind_one_runtime_share_no_answer(layer: Any) -> None:
    """The second program got the first one's answer; only a server said which program it was."""
    shared = Runtime(layers=[layer()])

    class Says(dspy.Module):  # type: ignore[misc]
        def __init__(self, instructions: str) -> None:
            super().__init__()
            self.ask = dspy.Predict(dspy.Signature(QA, instructions))

        async def aforward(self, question: str) -> Any:
            await asyncio.sleep(0)
            return dspy.Prediction(answer=self.ask.signature.instructions)

    one, two = (asyncify(Says(said), runtime=shared) for said in ("one", "two"))
    said = await asyncio.gather(one(question="?"), two(question="?"), one(question="?"))
    assert [prediction.answer for prediction in said] == ["one", "two", "one"]


@pytest.mark.parametrize("layer", [Cache, SingleFlight])
async def test_calls_with_other_positional_arguments_share_no_answer(layer: Any) -> None:
    """Positional arguments were in no key: any two positional calls shared an answer."""

    async def twice(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    double = asyncify(twice, runtime=Runtime(layers=[layer()]))
    assert await asyncio.gather(double(1), double(2), double(1)) == [2, 4, 2]


def test_the_layers_of_a_door_can_be_seen_and_replaced() -> None:
    limit = Limit(3)
    ask = asyncify(dspy.Predict(QA), timeout=5, runtime=Runtime(layers=[limit]))
    assert repr(ask.layers) == "[Deadline(5), Detached(), Limit(3, queue=100)]"  # type: ignore[attr-defined]
    bare = asyncify(dspy.Predict(QA), runtime=Runtime(layers=[limit]), layers=[Deadline(1)])
    assert repr(bare.layers) == "[Deadline(1)]"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="put a Deadline into your list"):
        asyncify(dspy.Predict(QA), timeout=5, layers=[limit])
