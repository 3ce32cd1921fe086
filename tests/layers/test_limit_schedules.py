"""Every order of asking, getting, leaving, being cancelled and running out of time: no slot leaks, nobody hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import DeadlineExceeded, LMFailed, Overloaded
from dspy_live.core.events import Completion, Event, Result, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.layers import Adaptive, Breaker, Deadline, Limit, Retry, SingleFlight, Timeouts
from dspy_live.testing import collect, explore


def check(scenario: Callable[[], Coroutine[Any, Any, None]], delays: int) -> None:
    count = explore(scenario, delays=delays)
    print(f"{count} schedules")
    assert count > 50


class Work:
    """An inner service that counts who is inside, until its slow exit is over."""

    def __init__(self, *events: Event) -> None:
        self.events = events
        self.active = 0
        self.most = 0

    async def __call__(self, call: Call, sink: Sink) -> Result:
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(0)
            for event in self.events:
                sink.push(event)
            return Completion({})
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                self.active -= 1


async def end(task: asyncio.Task[Any]) -> str:
    await asyncio.wait([task])
    if task.cancelled():
        return "cancelled"
    failure = task.exception()
    return "ok" if failure is None else type(failure).__name__


def test_a_limit_of_one_with_a_caller_that_is_cancelled() -> None:
    async def scenario() -> None:
        work, layer = Work(), Limit(1)
        service = layer(work)
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(3)]
        killer = asyncio.create_task(_cancel(tasks[1]))
        outcomes = [await end(task) for task in tasks]
        await killer
        assert outcomes[0] == outcomes[2] == "ok"
        assert outcomes[1] in ("ok", "cancelled")
        _nothing_left(layer, work)
        assert work.most == 1

    check(scenario, 4)


def test_the_limit_moves_meanwhile() -> None:
    async def scenario() -> None:
        work, layer = Work(), Limit(1)
        service = layer(work)
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(3)]

        async def move() -> None:
            layer.resize(2)
            await asyncio.sleep(0)
            layer.resize(1)

        mover = asyncio.create_task(move())
        assert [await end(task) for task in tasks] == ["ok"] * 3
        await mover
        _nothing_left(layer, work)
        assert work.most <= 2

    check(scenario, 4)


def test_a_short_queue_and_two_that_are_cancelled() -> None:
    async def scenario() -> None:
        work, layer = Work(), Limit(1, queue=1)
        service = layer(work)
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(3)]
        killers = [asyncio.create_task(_cancel(task)) for task in tasks[:2]]
        outcomes = [await end(task) for task in tasks]
        await asyncio.wait(killers)
        assert outcomes[2] in ("ok", "Overloaded")
        statistics = layer.statistics()
        assert statistics.refused == outcomes.count(Overloaded.__name__)
        _nothing_left(layer, work)

    check(scenario, 4)


def test_the_deadline_passes_at_any_moment() -> None:
    async def scenario() -> None:
        work, layer = Work(), Limit(1)
        service = Deadline(5)(layer(work))
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(2)]
        for task in tasks:
            assert await end(task) in ("ok", DeadlineExceeded.__name__)
            assert task.cancelling() == 0
        _nothing_left(layer, work)

    check(scenario, 7)


def test_the_deadline_and_a_cancellation() -> None:
    async def scenario() -> None:
        work, layer = Work(), Limit(1)
        service = Deadline(5)(layer(work))
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(2)]
        killers = [asyncio.create_task(_cancel(task)) for task in tasks]
        outcomes = [await end(task) for task in tasks]
        for outcome, killer in zip(outcomes, killers, strict=True):
            # Whoever cancels from outside is obeyed: the deadline never swallows it.
            assert outcome == "cancelled" if await killer else outcome in ("ok", DeadlineExceeded.__name__)
        _nothing_left(layer, work)

    check(scenario, 4)


def test_adaptive_gives_every_slot_back() -> None:
    async def scenario() -> None:
        work, layer = Work(), Adaptive(1, 2)
        service = layer(work)
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(3)]
        killer = asyncio.create_task(_cancel(tasks[1]))
        outcomes = [await end(task) for task in tasks]
        await killer
        assert outcomes[0] == outcomes[2] == "ok"
        assert layer.statistics().slots.active == layer.statistics().slots.waiting == work.active == 0
        assert work.most <= 2

    check(scenario, 4)


def test_single_flight_serves_the_callers_that_stay() -> None:
    async def scenario() -> None:
        work = Work(TextDelta("a"), TextDelta("b"))
        layer = SingleFlight(lambda call: "one")
        service = layer(work)
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(2)]
        killer = asyncio.create_task(_cancel(tasks[0]))
        outcomes = [await end(task) for task in tasks]
        await killer
        assert outcomes[1] == "ok"
        assert tasks[1].result() == [*work.events, Completion({})]
        assert outcomes[0] in ("ok", "cancelled")
        assert work.active == 0
        assert layer.statistics().active == 0

    check(scenario, 4)


def test_a_probe_that_is_cancelled_never_locks_the_breaker() -> None:
    async def scenario() -> None:
        layer = Breaker(minimum=1, open_for=1)

        async def down(call: Call, sink: Sink) -> Result:
            raise LMFailed("down")

        assert await end(asyncio.create_task(collect(layer(down), Call({})))) == "LMFailed"
        await asyncio.sleep(1)
        service = layer(Work())
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(2)]
        killer = asyncio.create_task(_cancel(tasks[0]))
        outcomes = [await end(task) for task in tasks]
        await killer
        assert set(outcomes) <= {"ok", "cancelled", "CircuitOpen"}
        # One that was cancelled after its answer has come proves that the service is well.
        if layer.state != "closed":
            assert "ok" not in outcomes
            assert await end(asyncio.create_task(collect(service, Call({})))) == "ok"
        assert layer.state == "closed"

    check(scenario, 6)


def test_retry_around_a_limit() -> None:
    async def scenario() -> None:
        failures = iter([True, False])

        class Once(Work):
            async def __call__(self, call: Call, sink: Sink) -> Result:
                result = await super().__call__(call, sink)
                if next(failures, False):
                    raise LMFailed("the first time")
                return result

        work, layer = Once(), Limit(1)
        service = Retry(2, chance=lambda: 1.0)(layer(work))
        tasks = [asyncio.create_task(collect(service, Call({}))) for _ in range(2)]
        killer = asyncio.create_task(_cancel(tasks[0]))
        outcomes = [await end(task) for task in tasks]
        await killer
        assert outcomes[1] == "ok"
        _nothing_left(layer, work)
        assert work.most == 1

    check(scenario, 4)


def test_the_silence_and_the_end_come_in_any_order() -> None:
    async def scenario() -> None:
        work, layer = Work(TextDelta("a")), Timeouts(first_token=1, idle=1)
        tasks = [asyncio.create_task(collect(layer(work), Call({}))) for _ in range(2)]
        killer = asyncio.create_task(_cancel(tasks[1]))
        outcomes = [await end(task) for task in tasks]
        assert outcomes[0] in ("ok", "FirstTokenTimeout", "IdleTimeout")
        assert outcomes[1] == "cancelled" if await killer else outcomes[1] in ("ok", "FirstTokenTimeout", "IdleTimeout")
        assert tasks[0].cancelling() == work.active == 0

    check(scenario, 5)


async def _cancel(task: asyncio.Task[Any]) -> bool:
    await asyncio.sleep(0)
    return task.cancel()


def _nothing_left(layer: Limit, work: Work) -> None:
    statistics = layer.statistics()
    assert (statistics.active, statistics.waiting) == (0, 0)
    assert work.active == 0
