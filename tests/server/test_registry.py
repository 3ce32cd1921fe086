"""The runs under way, alone: whose cancellation it is, the drain, the counts, the heartbeat."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.errors import Cancelled, Draining, NotFound, Overloaded
from dspy_live.server.errors import ClientGone
from dspy_live.server.runs.registry import RegisteredRun, RunRegistry
from dspy_live.server.transport.heartbeat import Pulse
from dspy_live.testing import virtual_time


async def wait_in(runs: RunRegistry, seconds: float = 60.0, run_id: str = "a", key: str = "") -> str:
    with RegisteredRun(runs, run_id, key):
        await asyncio.sleep(seconds)
    return "ended"


async def under_way(runs: RunRegistry, count: int = 1) -> None:
    while len(runs) < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_a_stopped_run_raises_its_reason_and_its_task_goes_on() -> None:
    runs = RunRegistry()

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
    runs = RunRegistry()
    task = asyncio.create_task(wait_in(runs))
    await under_way(runs)
    runs.find("a", "").stop(ClientGone("left"))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_run_that_has_ended_can_not_be_stopped() -> None:
    runs = RunRegistry()
    with RegisteredRun(runs, "a", "") as run:
        pass
    run.stop(Cancelled("late"))
    await asyncio.sleep(0)
    assert runs.statistics()["succeeded"] == 1


async def test_a_run_that_was_stopped_before_it_began_does_not_begin() -> None:
    runs = RunRegistry()
    run = RegisteredRun(runs, "a", "")
    run.stop(Cancelled("early"))
    with pytest.raises(Cancelled, match="early"):
        with run:
            pytest.fail("it began")
    assert runs.started == 0


async def test_a_run_is_found_by_its_own_key_only() -> None:
    runs = RunRegistry()
    task = asyncio.create_task(wait_in(runs, key="ada"))
    await under_way(runs)
    with pytest.raises(NotFound):
        runs.find("a", "bob")
    runs.find("a", "ada").stop(Cancelled("x"))
    await asyncio.wait([task])
    assert isinstance(task.exception(), Cancelled)


@pytest.mark.parametrize(
    ("failure", "count"),
    [
        (ClientGone("left"), "cancelled"),
        (Cancelled("by its client"), "cancelled"),
        (Overloaded("our own limit", local=True), "refused"),
        (Overloaded("the LM's limit"), "failed"),
        (ValueError("a bug"), "failed"),
    ],
)
async def test_each_end_is_counted_once(failure: Exception, count: str) -> None:
    runs = RunRegistry()
    with pytest.raises(type(failure)):
        with RegisteredRun(runs, "a", ""):
            raise failure
    found = runs.statistics()
    assert {name: found[name] for name in ("succeeded", "failed", "cancelled", "refused")} == {
        "succeeded": 0, "failed": 0, "cancelled": 0, "refused": 0, count: 1,
    }  # fmt: skip
    assert found["started"] == (count != "refused")
    assert found["active"] == 0


@virtual_time
async def test_a_drain_waits_and_then_stops() -> None:
    runs = RunRegistry()
    quick, slow = (asyncio.create_task(wait_in(runs, s, r)) for s, r in ((1.0, "a"), (60.0, "b")))
    await under_way(runs, 2)
    await runs.drain(5.0)
    assert quick.result() == "ended"
    await asyncio.wait([slow])
    assert isinstance(slow.exception(), Draining)
    assert asyncio.get_running_loop().time() == pytest.approx(5.0)
    with pytest.raises(Draining):
        with RegisteredRun(runs, "c", ""):
            pytest.fail("it began")
    await runs.drain(60)


@virtual_time
async def test_a_run_that_will_not_end_does_not_hold_up_the_drain_for_ever() -> None:
    runs = RunRegistry()
    over = asyncio.Event()

    async def stubborn() -> None:
        with RegisteredRun(runs, "a", ""):
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    continue

    task = asyncio.create_task(stubborn())
    await under_way(runs)
    await runs.drain(0)
    assert asyncio.get_running_loop().time() == pytest.approx(5.0)
    over.set()
    await asyncio.wait([task])
    assert isinstance(task.exception(), Draining)


class Stream:
    """Counts its beats."""

    def __init__(self) -> None:
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1


@virtual_time
async def test_each_stream_is_asked_twice_per_interval_and_the_timer_stops_with_the_last_one() -> None:
    pulse, first, second = Pulse(10.0), Stream(), Stream()
    pulse.add(first)
    await asyncio.sleep(11)
    pulse.add(second)
    await asyncio.sleep(10)
    pulse.remove(second)
    await asyncio.sleep(5)
    pulse.remove(first)
    assert (first.beats, second.beats) == (5, 2)
    assert pulse._timer is None
