"""The rules of every Service, as tests that any service can be put through."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Predicted, Started
from dspy_live.core.service import Service
from dspy_live.core.sink import DISCARD
from dspy_live.runtime.channel import read
from dspy_live.sansio.lifecycle import LM, PROGRAM, Lifecycle
from dspy_live.testing.scripted import Recorder, collect

SETTLE = 30.0
"""Seconds in which tasks that a call has started must be gone once it has ended."""


class ServiceConformance:
    """Subclass it in a test module as ``class TestMine(ServiceConformance)`` and give it a service.

    The service must answer :meth:`make_call` with a result, in a few seconds. Needs pytest, and no plugin of it. A
    layer is tested around a service that passes.
    """

    def make_service(self) -> Service:
        """Return a fresh service. Called on the running loop, once for each test."""
        raise NotImplementedError

    def make_call(self) -> Call:
        """Return a call that the service answers well."""
        return Call({})

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run one test; override it for a loop of your own."""
        asyncio.run(main)

    def test_a_call_returns_a_result_and_its_events_are_in_order(self) -> None:
        self.run(self._in_order())

    def test_the_result_does_not_depend_on_the_sink(self) -> None:
        self.run(self._discarded())

    def test_a_full_sink_pauses_the_service_and_loses_nothing(self) -> None:
        self.run(self._full())

    def test_cancelling_at_any_step_ends_everything_and_stays_a_cancellation(self) -> None:
        self.run(self._cancel())

    def test_an_outer_timeout_is_the_outer_one_s(self) -> None:
        self.run(self._outer_timeout())

    def test_reading_it_and_leaving_early_ends_everything(self) -> None:
        self.run(self._leave_early())

    def test_calls_at_once_do_not_mix(self) -> None:
        self.run(self._at_once())

    async def _in_order(self) -> None:
        before = asyncio.all_tasks()
        _check(await collect(self.make_service(), self.make_call()))
        await _settled(before)

    async def _discarded(self) -> None:
        service = self.make_service()
        result = await service(self.make_call(), DISCARD)
        assert isinstance(result, (Predicted, Completion)), f"a service returns a result, not {result!r}"

    async def _full(self) -> None:
        recorder = Recorder(bound=1)
        task = asyncio.ensure_future(_call(self.make_service(), self.make_call(), recorder))
        while not task.done():
            recorder.drain()
            await asyncio.sleep(0)
        _check([*recorder.events, task.result()])

    async def _cancel(self) -> None:
        service = self.make_service()
        for ticks in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55):
            for times in (1, 2):
                before = asyncio.all_tasks()
                task = asyncio.ensure_future(_call(service, self.make_call(), DISCARD))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                over = task.done()
                for _ in range(times):
                    task.cancel()
                    await asyncio.sleep(0)
                await asyncio.wait([task])
                assert over or task.cancelled(), f"cancelled after {ticks} turns of the loop it must end as cancelled"
                await _settled(before)

    async def _outer_timeout(self) -> None:
        before = asyncio.all_tasks()
        service, task = self.make_service(), asyncio.current_task()
        assert task is not None
        count = task.cancelling()
        try:
            async with asyncio.timeout(0):
                await service(self.make_call(), DISCARD)
        except TimeoutError:
            pass
        assert task.cancelling() == count, "the cancellation of an outer timeout must be taken back by it alone"
        await _settled(before)

    async def _leave_early(self) -> None:
        before = asyncio.all_tasks()
        async with read(self.make_service(), self.make_call()) as reader:
            await reader.receive_many()
        await _settled(before)

    async def _at_once(self) -> None:
        calls = [self.make_call() for _ in range(5)]
        service = self.make_service()
        results = await asyncio.gather(*(collect(service, call) for call in calls))
        for call, events in zip(calls, results, strict=True):
            _check(events)
            if isinstance(events[0], Started):
                assert events[0].run == call.id, "Started names the call that was made"


async def _call(service: Service, call: Call, sink: Any) -> Any:
    return await service(call, sink)


def _check(told: list[Any]) -> None:
    *events, result = told
    assert isinstance(result, (Predicted, Completion)), f"a service returns a result, not {result!r}"
    lifecycle = Lifecycle(PROGRAM if isinstance(result, Predicted) else LM)
    for event in events:
        lifecycle.check(_as_event(event))
    assert isinstance(result, Completion) or events, "a program's run says that it has started"


def _as_event(event: Any) -> Event:
    assert not isinstance(event, (Predicted, Completion)), "a result is returned and never pushed"
    return event  # type: ignore[no-any-return]


async def _settled(before: set[asyncio.Task[Any]]) -> None:
    """Wait until no task is left but those of before."""
    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left, timeout=SETTLE)
        left = {task for task in left if not task.done()}
    assert not left, f"tasks outlive their call: {left}"
