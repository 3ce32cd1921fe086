"""So many at once: order, fairness, refusal, and a slot that is free only when the work has ended."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, DeadlineExceeded, LMFailed, Overloaded
from dspy_live.core.events import Completion, Result
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers.deadline import Deadline
from dspy_live.layers.limit import Limit
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("bad", [0, -1, 1.5, float("nan"), True])
def test_bad_values_are_refused(bad: int) -> None:
    with pytest.raises(ConfigurationError, match="limit must be a whole number of calls, at least 1"):
        Limit(bad)
    if bad != 0:
        with pytest.raises(ConfigurationError, match="queue must be a whole number of calls, at least 0"):
            Limit(1, queue=bad) if bad is not True else Limit(1, queue="1")  # type: ignore[arg-type]


@virtual_time
async def test_never_more_than_the_limit_and_all_in_order() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    layer = Limit(3)
    calls = [Call({"n": n}) for n in range(10)]
    await asyncio.gather(*(collect(layer(script), call) for call in calls))
    assert script.most_active == 3
    assert now() == 4
    assert script.calls == calls
    statistics = layer.statistics()
    assert (statistics.active, statistics.waiting, statistics.admitted) == (0, 0, 10)


@virtual_time
async def test_a_full_queue_refuses_and_says_which_limit_and_what_to_do() -> None:
    script = ScriptedService()
    layer = Limit(2, queue=1)
    tasks = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="limit of 2 calls at once is reached and 1 more wait") as info:
        await collect(layer(script), Call({}))
    assert info.value.retry_after == 1
    assert info.value.status == 503
    assert layer.statistics().refused == 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert layer.statistics().active == layer.statistics().waiting == 0


@virtual_time
async def test_retry_after_follows_how_long_calls_take() -> None:
    layer = Limit(1, queue=1)
    await collect(layer(ScriptedService([Wait(40), Completion({})])), Call({}))
    script = ScriptedService()
    tasks = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as info:
        await collect(layer(script), Call({}))
    assert info.value.retry_after == 80
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@virtual_time
async def test_a_slot_is_given_back_only_when_the_work_has_ended() -> None:
    script = ScriptedService(hold_exit=True)
    layer = Limit(1)
    first = asyncio.create_task(collect(layer(script), Call({})))
    second = asyncio.create_task(collect(layer(script), Call({})))
    attempt = await script.attempt()
    first.cancel()
    await asyncio.sleep(10)
    assert attempt.state == "leaving"
    assert len(script.attempts) == 1
    assert layer.statistics().active == 1
    attempt.may_end.set()
    (await script.attempt(1)).end()
    script.attempts[1].may_end.set()
    await second
    assert first.cancelled()
    assert layer.statistics().active == 0


@virtual_time
async def test_failures_give_slots_back() -> None:
    layer = Limit(1)
    for script in (ScriptedService(LMFailed("at once")), ScriptedService([Wait(1), LMFailed("later")])):
        for _ in range(3):
            with pytest.raises(LMFailed):
                await collect(layer(script), Call({}))
    assert layer.statistics().active == 0


@virtual_time
async def test_leaving_the_queue_gives_the_place_up() -> None:
    script = ScriptedService()
    layer = Limit(1, queue=2)
    tasks = [asyncio.create_task(collect(layer(script), Call({"n": n}))) for n in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert layer.statistics().waiting == 1
    assert layer.statistics().gave_up == 1
    script.attempts[0].end()
    (await script.attempt(1)).end()
    await asyncio.gather(tasks[0], tasks[2])
    assert [call.inputs["n"] for call in script.calls] == [0, 2]


@virtual_time
async def test_a_slot_granted_to_one_that_is_cancelled_in_the_same_moment_goes_on() -> None:
    script = ScriptedService()
    layer = Limit(1)
    tasks = [asyncio.create_task(collect(layer(script), Call({"n": n}))) for n in range(3)]
    await asyncio.sleep(0)
    layer.resize(2)  # grants the second its slot: it is in, but has not run yet
    tasks[1].cancel()
    await script.attempt(1)
    assert [call.inputs["n"] for call in script.calls] == [0, 2]
    for attempt in script.attempts:
        attempt.end()
    await asyncio.gather(tasks[0], tasks[2])
    assert layer.statistics().active == 0


@virtual_time
async def test_the_deadline_holds_in_the_queue() -> None:
    script = ScriptedService()
    layer = Limit(1)
    running = asyncio.create_task(collect(layer(script), Call({})))
    await script.attempt()
    with pytest.raises(DeadlineExceeded):
        await collect(Deadline()(layer(script)), Call({}, deadline=5))
    assert now() == 5
    assert layer.statistics().waiting == 0
    running.cancel()
    await asyncio.wait([running])


@virtual_time
async def test_keys_take_turns() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    layer = Limit(1, key=lambda call: call.key)
    calls = [Call({}, key="greedy") for _ in range(50)]
    tasks = [asyncio.create_task(collect(layer(script), call)) for call in calls]
    await asyncio.sleep(0)
    await collect(layer(script), Call({}, key="modest"))
    assert now() == 3  # the one that ran, one turn of the greedy key, its own
    await asyncio.gather(*tasks)


@virtual_time
async def test_a_queue_of_100_around_a_limit_of_10_admits_110() -> None:
    script = ScriptedService()
    layer = Limit(10, queue=100)
    tasks = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(150)]
    await asyncio.sleep(1)
    assert sum(task.done() for task in tasks) == 40
    assert all(isinstance(task.exception(), Overloaded) for task in tasks if task.done())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@virtual_time
async def test_the_limit_can_be_moved() -> None:
    script = ScriptedService()
    layer = Limit(1)
    tasks = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(5)]
    await asyncio.sleep(0)
    layer.resize(4)
    await script.attempt(3)
    layer.resize(1)
    assert layer.statistics().active == 4
    for attempt in list(script.attempts):
        attempt.end()
    (await script.attempt(4)).end()
    await asyncio.gather(*tasks)
    assert layer.statistics().active == 0


@virtual_time
async def test_the_callers_own_sink_is_handed_through() -> None:
    script = ScriptedService([Completion({})])
    await Limit(1)(script)(Call({}), DISCARD)
    assert script.attempts[0].sink is DISCARD


async def test_it_holds_across_event_loops() -> None:
    """The default runtime serves callers on several loops; they share its limits."""
    layer = Limit(1)
    inside = most = 0
    lock = threading.Lock()

    async def counted(call: Call, sink: Sink) -> Result:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        for _ in range(5):
            await asyncio.sleep(0)
        with lock:
            inside -= 1
        return Completion({})

    async def many() -> None:
        await asyncio.gather(*(layer(counted)(Call({}), DISCARD) for _ in range(10)))

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(3)]
    for thread in threads:
        thread.start()
    await many()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert most == 1
    statistics = layer.statistics()
    assert (statistics.active, statistics.waiting, statistics.admitted) == (0, 0, 40)


def test_a_loop_that_closes_with_a_call_in_the_queue_leaks_no_slot() -> None:
    layer = Limit(1)
    held = asyncio.new_event_loop()
    held.run_until_complete(layer._slots.acquire(None))
    gone = asyncio.new_event_loop()
    waiting = gone.create_task(layer._slots.acquire(None))
    gone.run_until_complete(asyncio.sleep(0))
    gone.close()
    layer._slots.release(1.0)
    assert layer.statistics().active == 0
    held.close()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
