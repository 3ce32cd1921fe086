"""The runs under way, alone: whose cancellation it is, the drain, the figures, the heartbeat."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.errors import Cancelled, Draining, NotFound, Overloaded
from dspy_live.server.errors import ClientGone
from dspy_live.server.runs.registry import ActiveRun, ActiveRuns
from dspy_live.server.transport.heartbeat import Heartbeat, Pulse


async def wait_in(runs: ActiveRuns, seconds: float = 60.0, run_id: str = "a", key: str = "") -> str:
    with runs.enter(run_id, key, "qa"):
        await asyncio.sleep(seconds)
    return "ended"


async def under_way(runs: ActiveRuns, count: int = 1) -> None:
    while len(runs) < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_a_stopped_run_raises_its_reason_and_its_task_goes_on() -> None:
    runs = ActiveRuns()

    async def work() -> str:
        with pytest.raises(Cancelled, match="first"):
            await wait_in(runs)
        await asyncio.sleep(0)
        return "went on"

    task = asyncio.create_task(work())
    await under_way(runs)
    run = runs.find("a", "")
    run.stop(Cancelled("first"))
    run.stop(Cancelled("second"))
    assert await task == "went on"
    assert task.cancelling() == 0
    assert runs.statistics()["cancelled"] == 1


async def test_a_cancellation_that_is_not_ours_stays_one() -> None:
    runs = ActiveRuns()
    task = asyncio.create_task(wait_in(runs))
    await under_way(runs)
    runs.find("a", "").stop(ClientGone("left"))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_run_that_has_ended_can_not_be_stopped() -> None:
    runs = ActiveRuns()
    with runs.enter("a", "", "qa") as run:
        pass
    run.stop(Cancelled("late"))
    await asyncio.sleep(0)
    assert runs.statistics()["succeeded"] == 1


async def test_the_limit_and_whose_run_it_is() -> None:
    runs = ActiveRuns(1)
    task = asyncio.create_task(wait_in(runs, key="ada"))
    await under_way(runs)
    with pytest.raises(Overloaded, match="1 runs"):
        runs.enter("b", "", "qa")
    with pytest.raises(NotFound):
        runs.find("a", "bob")
    runs.find("a", "ada").stop(Cancelled("x"))
    await asyncio.wait([task])
    assert isinstance(runs.enter("b", "", "qa"), ActiveRun)
    assert isinstance(task.exception(), Cancelled)


async def test_a_drain_waits_and_then_stops() -> None:
    runs = ActiveRuns()
    quick, slow = (asyncio.create_task(wait_in(runs, s, r)) for s, r in ((0.02, "a"), (60.0, "b")))
    await under_way(runs, 2)
    await runs.drain(0.1)
    assert quick.result() == "ended"
    await asyncio.wait([slow])
    assert isinstance(slow.exception(), Draining)
    with pytest.raises(Draining):
        runs.check()
    await runs.drain(60)


async def test_a_run_that_will_not_end_does_not_hold_up_the_drain_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspy_live.server.runs.registry.LAST_WORDS", 0.05)
    runs = ActiveRuns()
    over = asyncio.Event()

    async def stubborn() -> None:
        with runs.enter("a", "", "qa"):
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    continue

    task = asyncio.create_task(stubborn())
    await under_way(runs)
    await asyncio.wait_for(runs.drain(0), 2)
    over.set()
    await asyncio.wait([task])


async def test_a_beat_and_a_write_never_overlap() -> None:
    told: list[str] = []

    async def beat() -> None:
        told.append("beat begins")
        await asyncio.sleep(0.05)
        told.append("beat ends")

    with Heartbeat(Pulse(0.02), beat) as heart:
        await asyncio.sleep(0.03)
        heart.busy = heart.sent = True
        await heart.settle()
        told.append("write")
    assert told == ["beat begins", "beat ends", "write"]


async def test_a_busy_stream_has_no_beats_and_the_pulse_stops_with_the_last_stream() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        beats += 1

    pulse = Pulse(0.04)
    with Heartbeat(pulse, beat) as heart:
        for _ in range(20):
            heart.busy = heart.sent = True
            await asyncio.sleep(0.005)
            heart.busy = False
        assert beats == 0
        await asyncio.sleep(0.1)
        assert beats >= 1
    seen = beats
    await asyncio.sleep(0.1)
    assert beats == seen
    assert pulse._timer is None
