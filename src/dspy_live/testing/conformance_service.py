"""What every Service must keep, as tests that any service can be put through."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Predicted, Started
from dspy_live.core.service import Receiver, Service
from dspy_live.sansio.lifecycle import LM, PROGRAM, Lifecycle

SETTLE = 5.0
"""Seconds in which tasks that a call has started must be gone once it was left."""


class ServiceConformance:
    """Subclass it in a test module as ``class TestMine(ServiceConformance)`` and give it a service.

    The service must answer :meth:`make_call` with at least one event and an end, in a few seconds. Needs pytest, and no
    plugin of it. A layer is tested around a service that passes.
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

    def test_a_call_ends_with_one_result_and_its_events_are_in_order(self) -> None:
        self.run(self._in_order())

    def test_one_by_one_and_many_at_once_tell_the_same_story(self) -> None:
        self.run(self._one_by_one())

    def test_the_end_stays_the_end(self) -> None:
        self.run(self._end_stays())

    def test_the_receiver_keeps_the_protocol(self) -> None:
        self.run(self._protocol())

    def test_leaving_early_ends_everything(self) -> None:
        self.run(self._leave_early())

    def test_leaving_without_reading_ends_everything(self) -> None:
        self.run(self._leave_unread())

    def test_an_error_in_the_readers_code_goes_through(self) -> None:
        self.run(self._readers_error())

    def test_cancelling_the_reader_ends_everything_and_stays_a_cancellation(self) -> None:
        self.run(self._cancel())

    def test_a_cancelled_receive_takes_nothing(self) -> None:
        self.run(self._cancelled_receive())

    def test_calls_at_once_do_not_mix(self) -> None:
        self.run(self._at_once())

    async def _in_order(self) -> None:
        _check(await _collect(self.make_service(), self.make_call()))
        await _settled()

    async def _one_by_one(self) -> None:
        service = self.make_service()
        async with service.open(self.make_call()) as receiver:
            events = [event async for event in receiver]
        _check(events)
        assert type(events[-1]) is type((await _collect(service, self.make_call()))[-1])

    async def _end_stays(self) -> None:
        async with self.make_service().open(self.make_call()) as receiver:
            while await receiver.receive_many():
                pass
            assert await receiver.receive_many() == [], "after the end comes nothing but the end"

    async def _protocol(self) -> None:
        async with self.make_service().open(self.make_call()) as receiver:
            assert isinstance(receiver, Receiver)

    async def _leave_early(self) -> None:
        before = asyncio.all_tasks()
        async with self.make_service().open(self.make_call()) as receiver:
            assert await receiver.receive_many(), "a call begins with an event"
        await _settled(before)

    async def _leave_unread(self) -> None:
        before = asyncio.all_tasks()
        async with self.make_service().open(self.make_call()):
            pass
        await _settled(before)

    async def _readers_error(self) -> None:
        before = asyncio.all_tasks()
        mine = RuntimeError("the reader's own")
        came_out: BaseException | None = None
        try:
            async with self.make_service().open(self.make_call()):
                raise mine
        except RuntimeError as exc:
            came_out = exc
        assert came_out is mine, "the reader's error must come out as it is"
        await _settled(before)

    async def _cancel(self) -> None:
        before = asyncio.all_tasks()
        service = self.make_service()
        opened = asyncio.Event()

        async def read() -> None:
            async with service.open(self.make_call()) as receiver:
                await receiver.receive_many()
                opened.set()
                await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(read())
        await opened.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), "a reader that is cancelled ends as cancelled"
        await _settled(before)

    async def _cancelled_receive(self) -> None:
        # Cancelled before it runs, while it waits, and when it may have been woken already.
        for ticks in range(6):
            async with self.make_service().open(self.make_call()) as receiver:
                _check(await _read_with_cancellations(receiver, ticks))

    async def _at_once(self) -> None:
        calls = [self.make_call() for _ in range(5)]
        service = self.make_service()
        results = await asyncio.gather(*(_collect(service, call) for call in calls))
        for call, events in zip(calls, results, strict=True):
            _check(events)
            if isinstance(events[0], Started):
                assert events[0].run == call.id, "Started names the call that was opened"


async def _collect(service: Service, call: Call) -> list[Event]:
    events: list[Event] = []
    async with service.open(call) as receiver:
        while batch := await receiver.receive_many():
            events.extend(batch)
    return events


async def _read_with_cancellations(receiver: Receiver[Event], ticks: int) -> list[Event]:
    events: list[Event] = []
    while True:
        reading = asyncio.ensure_future(receiver.receive_many())
        for _ in range(ticks):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            events.extend(reading.result())
        batch = await receiver.receive_many()
        if not batch:
            return events
        events.extend(batch)


def _check(events: list[Event]) -> None:
    assert events, "a call has at least one event"
    lifecycle = Lifecycle(PROGRAM if isinstance(events[0], Started) else LM)
    for event in events:
        lifecycle.check(event)
    lifecycle.end()
    assert isinstance(events[-1], (Predicted, Completion))


async def _settled(before: set[asyncio.Task[Any]] | None = None) -> None:
    """Wait until no task is left but those of before."""
    allowed = before if before is not None else {asyncio.current_task()}
    left = asyncio.all_tasks() - allowed
    if left:
        await asyncio.wait(left, timeout=SETTLE)
        left = {task for task in left if not task.done()}
    assert not left, f"tasks outlive their call: {left}"
