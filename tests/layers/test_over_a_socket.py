"""Layers around real programs and their LM, over real sockets, with an LM that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import dspy
import pytest
from tests.layers.doors import without_restarts
from tests.support.held_simulator import HeldSimulator
from tests.support.until import async_until

from dspy_live import LM, asyncify, streamify
from dspy_live.core.call import Call
from dspy_live.core.errors import CircuitOpen, DeadlineExceeded, Overloaded, StreamBroken
from dspy_live.core.events import Restart
from dspy_live.layers import (
    Adaptive,
    Breaker,
    Deadline,
    Fallback,
    Limit,
    Rate,
    Retry,
    Shed,
    SingleFlight,
    Timeouts,
    check_order,
)
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.runtime import Runtime
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.simulator import Simulator
from dspy_live.simulator.endpoint import SimulatedEndpoint

QUICK = Backoff(base=0.01, cap=0.02)


class Sim(NamedTuple):
    server: Simulator
    url: str

    def lm(self, **options: Any) -> LM:
        return LM("openai/m", api_base=self.url, api_key="sk-test", cache=False, **options)


def running(**options: Any) -> Iterator[Sim]:
    server = Simulator(seed=1, **options)
    with server.running() as url:
        yield Sim(server, url)


@pytest.fixture
def sim() -> Iterator[Sim]:
    yield from running()


class Held(NamedTuple):
    server: HeldSimulator
    sim: Sim


@pytest.fixture
def held() -> Iterator[Held]:
    """An LM that answers when the test says so."""
    server = HeldSimulator(seed=1)
    with server.running() as url:
        yield Held(server, Sim(server, url))


def joined(items: list[Any]) -> str:
    text = ""
    for item in items:
        if isinstance(item, Restart):
            text = ""
        elif isinstance(item, str):
            text += item
    return text


WAYS = ("native", "thread", "inline")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "cut_start", "malformed", "error_in_stream"])
async def test_after_a_retried_fault_the_streamed_text_is_the_answer(sim: Sim, fault: str, way: Any) -> None:
    layer = Retry(3, backoff=QUICK)
    runtime = Runtime(lm_layers=[layer])
    sim.server.next(fault=fault, retry_after=0)
    with dspy.context(lm=sim.lm(num_retries=5)):
        stream = streamify(dspy.Predict("question -> answer"), runtime=runtime, execution=way)
        items = [item async for item in stream(question="What is Rust?")]
    assert joined(items) == items[-1].answer
    assert len(items[-1].answer) > 10
    assert layer.statistics().retries == 1  # and the LM's own five tries did not multiply it
    assert sum(isinstance(item, Restart) for item in items) <= 1


async def test_a_stall_is_cut_off_and_retried(sim: Sim) -> None:
    # A machine that stands still is an LM that stalls too: each time costs one more try.
    runtime = Runtime(lm_layers=[Retry(20, backoff=QUICK), Timeouts(first_token=0.3, idle=0.3)])
    for fault in ("stall_start", "stall"):
        sim.server.next(fault=fault)
        with dspy.context(lm=sim.lm()):
            stream = streamify(dspy.Predict("question -> answer"), runtime=runtime)
            items = [item async for item in stream(question="What is Rust?")]
        assert joined(items) == items[-1].answer


async def test_a_limit_around_the_lm_holds_and_slots_come_back(held: Held) -> None:
    limit = Limit(3)
    runtime = Runtime(lm_layers=[limit])
    with dspy.context(lm=held.sim.lm()):
        ask = asyncify(dspy.Predict("question -> answer"), runtime=runtime)
        tasks = [asyncio.create_task(ask(question=f"q{n}")) for n in range(12)]
        await async_until(lambda: len(held.server.held) == 3 and limit.statistics().waiting == 9)
        for task in tasks[::3]:
            task.cancel()
        await async_until(lambda: held.server.arrived == 4 and len(held.server.held) == 3)
        assert limit.statistics().waiting == 5
        held.server.release()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(r, asyncio.CancelledError) for r in results) == 4
    assert sum(isinstance(r, dspy.Prediction) for r in results) == 8
    assert held.server.snapshot()["peak_active"] <= 3
    assert limit.statistics().active == limit.statistics().waiting == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_deadline_around_the_program_closes_the_lms_connection(way: Any) -> None:
    for slow in running(ttft=60):
        runtime = Runtime(layers=[Deadline(0.2), Limit(1)])
        with dspy.context(lm=slow.lm()):
            ask = asyncify(dspy.Predict("question -> answer"), runtime=runtime, execution=way)
            with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
                await ask(question="q")
        await async_until(lambda server=slow.server: server.stats.active == 0)


async def test_another_lm_takes_over(sim: Sim) -> None:
    sim.server.set_faults(rates={"500": 1.0})
    fallback = Fallback(SimulatedEndpoint())
    with dspy.context(lm=sim.lm(num_retries=0)):
        ask = asyncify(dspy.Predict("question -> answer"), runtime=Runtime(lm_layers=[fallback]))
        assert (await ask(question="What is Rust?")).answer
    assert fallback.statistics().tried == (1,)


async def test_an_open_circuit_asks_nobody(sim: Sim) -> None:
    sim.server.set_faults(rates={"500": 1.0})
    breaker = Breaker(minimum=2, open_for=60)
    runtime = Runtime(lm_layers=[breaker])
    with dspy.context(lm=sim.lm(num_retries=0)):
        ask = asyncify(dspy.Predict("question -> answer"), runtime=runtime)
        for _ in range(4):
            with pytest.raises(Exception):  # noqa: B017 - DSPy's own LM errors, and then ours
                await ask(question="q")
        asked = sim.server.snapshot()["requests"]
        with pytest.raises(CircuitOpen, match="try again in"):
            await ask(question="q")
    assert sim.server.snapshot()["requests"] == asked


async def test_identical_calls_in_flight_share_one_run(held: Held) -> None:
    single = SingleFlight()
    with dspy.context(lm=held.sim.lm()):
        stream = streamify(dspy.Predict("question -> answer"), runtime=Runtime(lm_layers=[single]))

        async def one(question: str) -> list[Any]:
            return [item async for item in stream(question=question)]

        asking = asyncio.gather(*(one("the same") for _ in range(5)), one("another"))
        await async_until(lambda: single.statistics().joined == 4 and len(held.server.held) == 2)
        held.server.release()
        results = await asking
    assert held.server.arrived == 2
    for items in results:
        assert joined(items) == items[-1].answer
    assert len({items[-1].answer for items in results[:5]}) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_door_that_cannot_take_words_back(sim: Sim, way: Any) -> None:
    runtime = Runtime(lm_layers=[Retry(3, backoff=QUICK)])
    program = dspy.Predict("question -> answer")
    service = ProgramService(program, runtime=runtime, execution=way, overrides={"lm": sim.lm()}).layered()
    sim.server.next(fault="cut", after=25)  # in the middle of the answer's text
    with pytest.raises(StreamBroken):
        await without_restarts(service, Call({"question": "q"}))
    assert sim.server.snapshot()["requests"] == 1
    sim.server.next(fault="cut_start")
    assert (await without_restarts(service, Call({"question": "q"})))[-1].outputs["answer"]


async def test_everything_together_under_load_and_faults() -> None:
    """Each run ends once, with a result or an error of ours; no limit is exceeded; nothing is left."""
    for sim in running(ttft=0.005, tokens_per_second=2000):
        sim.server.set_options(retry_after=0)
        sim.server.set_faults(rates={"429": 0.05, "500": 0.05, "cut": 0.1, "cut_start": 0.05, "stall": 0.03})
        shed, single, limit = Shed(150), SingleFlight(lambda call: call.inputs.get("question")), Limit(100, queue=20)
        adaptive, retry = Adaptive(4, 20, start=8, queue=200), Retry(20, backoff=QUICK, budget=None)
        layers = [shed, Deadline(60), single, limit]
        # While the machine stands still all replies stall at once; the breaker waits for more failures than that.
        breaker = Breaker(0.9, minimum=500)
        lm_layers = [retry, breaker, Rate(requests_per_minute=600_000), adaptive, Timeouts(2, 0.5)]
        check_order(layers)
        check_order(lm_layers)
        runtime = Runtime(layers=layers, lm_layers=lm_layers)
        with dspy.context(lm=sim.lm()):
            stream = streamify(dspy.Predict("question -> answer"), runtime=runtime)

            async def one(n: int, stream: Any = stream) -> Any:
                items = [item async for item in stream(question=f"question {n % 60}")]
                assert joined(items) == items[-1].answer
                return items[-1]

            tasks = [asyncio.create_task(one(n)) for n in range(120)]
            await async_until(lambda server=sim.server: server.stats.active)
            left = [task for task in tasks[::10] if task.cancel()]
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in left)
        good = sum(isinstance(r, dspy.Prediction) for r in results)
        refused = sum(isinstance(r, (Overloaded, StreamBroken)) for r in results)
        gone = sum(isinstance(r, asyncio.CancelledError) for r in results)
        failed = [r for r in results if isinstance(r, Exception) and not isinstance(r, (Overloaded, StreamBroken))]
        assert good + refused + gone + len(failed) == 120
        assert gone == len(left) > 0
        assert good > 90, failed
        assert sim.server.snapshot()["peak_active"] <= 20
        for layer in (shed, limit, single):
            assert layer.statistics().active == 0
        assert adaptive.statistics().slots.active == adaptive.statistics().slots.waiting == 0
