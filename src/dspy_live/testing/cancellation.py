"""Ends a scenario from outside at every step of the loop, in every way that asyncio knows."""

from __future__ import annotations

import asyncio
import gc
import itertools
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_live.testing.virtual_time import VirtualLoop

WAYS = ("cancel", "cancel twice", "timeout", "group")
"""``Task.cancel``; again one step later; an ``asyncio.timeout`` around it; a ``TaskGroup`` whose other task fails."""

TAKEN_BACK = "a cancellation was taken back by somebody who has not sent it"

SETTLE = 1e6
"""Virtual seconds in which tasks that the scenario has left behind must end."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the work ended: with ``result``, or with ``error``; ``complete`` when it was not ended from outside."""

    way: str
    complete: bool
    result: Any
    error: BaseException | None


Scenario = Callable[[], tuple[Coroutine[Any, Any, Any], Callable[[Ending], object]]]
"""Called on the running loop; returns the work, and a check that is called the moment the work has ended."""


def explore_cancellation(scenario: Scenario, *, ways: Sequence[str] = WAYS, most: int = 10_000) -> int:
    """Run the work of ``scenario()`` and end it after each step of the loop, in each of ``ways``.

    Time is virtual: a timer's firing is a step as well. Returns how many schedules there were. The scenario's own check
    is called for each. Besides, each must hold: the end is a cancellation, or a result or an error that was under way
    already; the number of cancellations that the task has seen is right; no task is left; nothing is reported to the
    loop's exception handler. A failed assertion names the schedule in a note.

    Raises:
        RuntimeError: the work takes more than ``most`` steps.
    """
    reports: list[dict[str, Any]] = []
    count = 0
    for way in ways:
        for step in itertools.count():
            loop = _SteppingLoop(step)
            loop.set_exception_handler(lambda _, context: reports.append(context))
            try:
                with asyncio.Runner(loop_factory=lambda loop=loop: loop) as runner:  # type: ignore[misc]
                    complete = runner.run(_one(scenario, way, loop))
                assert not reports, f"reported to the loop: {reports[0]}"
            except BaseException as exc:
                exc.add_note(f"ended by {way!r} at step {step}")
                raise
            count += 1
            if complete:
                break
            if step >= most:
                raise RuntimeError(f"the scenario takes more than {most} steps")
    gc.collect()  # a task whose failure nobody has looked at reports it when it goes
    assert not reports, f"reported to the loop: {reports[0]}"
    return count


class _SteppingLoop(VirtualLoop):
    """Calls ``interrupt`` after ``step`` rounds from :meth:`arm` on, and after each further one if it returns True."""

    def __init__(self, step: int) -> None:
        super().__init__(patience=1.0)
        self.interrupted = False
        self._interrupt: Callable[[], bool] | None = None
        self._left = step
        self._select = self._virtual.select
        self._virtual.select = self._counted  # type: ignore[method-assign]

    def arm(self, interrupt: Callable[[], bool]) -> None:
        self._interrupt = interrupt

    def disarm(self) -> None:
        self._interrupt = None

    def _counted(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._interrupt is None:
            return self._select(timeout)
        self._left -= 1
        if self._left >= 0:
            return self._select(timeout)
        self.interrupted = True
        if not self._interrupt():
            self.disarm()
        return []


async def _one(scenario: Scenario, way: str, loop: _SteppingLoop) -> bool:
    main = asyncio.current_task()
    work, check = scenario()
    result = error = None
    try:
        result = await asyncio.create_task(_SURROUNDINGS[way](work, loop))
    except AssertionError:
        raise
    except BaseException as exc:
        error = exc
    check(Ending(way, not loop.interrupted, result, error))
    await asyncio.sleep(SETTLE)
    left = asyncio.all_tasks() - {main}
    assert not left, f"tasks outlive their call: {left}"
    return not loop.interrupted


async def _cancelled(work: Coroutine[Any, Any, Any], loop: _SteppingLoop, times: int = 1) -> Any:
    task = _current()
    sent = 0

    def cancel() -> bool:
        nonlocal sent
        sent += 1
        task.cancel()
        return sent < times

    loop.arm(cancel)
    try:
        return await work
    finally:
        loop.disarm()
        assert task.cancelling() == sent, TAKEN_BACK


async def _cancelled_twice(work: Coroutine[Any, Any, Any], loop: _SteppingLoop) -> Any:
    return await _cancelled(work, loop, times=2)


async def _timed_out(work: Coroutine[Any, Any, Any], loop: _SteppingLoop) -> Any:
    try:
        async with asyncio.timeout(None) as timeout:

            def expire() -> bool:
                timeout.reschedule(loop.time())
                return False

            loop.arm(expire)
            try:
                return await work
            finally:
                loop.disarm()
                assert _current().cancelling() == timeout.expired(), TAKEN_BACK
    finally:
        assert _current().cancelling() == 0, "an outer timeout takes its own cancellation back, once"


async def _in_a_group(work: Coroutine[Any, Any, Any], loop: _SteppingLoop) -> Any:
    failing = asyncio.Event()
    failure: Exception | None = None

    async def fail() -> None:
        await failing.wait()
        raise ConnectionError("the other task of the group")

    def set_off() -> bool:
        failing.set()
        return False

    try:
        async with asyncio.TaskGroup() as group:
            sibling = group.create_task(fail())
            loop.arm(set_off)
            try:
                return await work
            except Exception as exc:
                failure = exc
                raise
            finally:
                loop.disarm()
                sibling.cancel()
    except BaseExceptionGroup:
        raise failure or asyncio.CancelledError from None


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


_SURROUNDINGS: dict[str, Callable[[Coroutine[Any, Any, Any], _SteppingLoop], Coroutine[Any, Any, Any]]] = {
    "cancel": _cancelled,
    "cancel twice": _cancelled_twice,
    "timeout": _timed_out,
    "group": _in_a_group,
}
