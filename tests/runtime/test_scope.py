# ruff: noqa: PT012
"""Scopes: the reason, and whose cancellation it was; waiting for a real end; room as a level."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dspy_live.core.errors import BudgetExceeded, Cancelled, DeadlineExceeded, ProgramFailed, Stop
from dspy_live.runtime.scope import Room, Scope, ended
from dspy_live.testing import Ending, explore, explore_cancellation, virtual_time


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def me() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def soon(callback: Callable[..., object], *args: Any) -> None:
    asyncio.get_running_loop().call_soon(callback, *args)


async def test_the_given_error_is_raised_and_the_task_is_intact() -> None:
    error = BudgetExceeded("spent")
    with pytest.raises(BudgetExceeded) as info:
        with Scope() as scope:
            soon(scope.fail, error)
            await forever()
    assert info.value is error
    assert scope.error is error
    assert me().cancelling() == 0
    await asyncio.sleep(0)


async def test_an_errors_own_cause_is_kept() -> None:
    error = ProgramFailed("the program")
    error.__cause__ = KeyError("bug")
    with pytest.raises(ProgramFailed) as info:
        with Scope() as scope:
            soon(scope.fail, error)
            await forever()
    assert isinstance(info.value.__cause__, KeyError)


async def test_the_first_reason_wins() -> None:
    first = Cancelled("by its caller")
    with pytest.raises(Cancelled) as info:
        with Scope() as scope:
            assert scope.fail(first)
            assert not scope.fail(DeadlineExceeded("later"))
            await forever()
    assert info.value is first


async def test_our_cancel_is_swallowed_and_theirs_is_not() -> None:
    async def work() -> None:
        with Scope():
            await forever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel("theirs")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("ours_first", [True, False])
async def test_both_at_once_are_theirs(ours_first: bool) -> None:
    scopes: list[Scope] = []

    async def work() -> None:
        with Scope() as scope:
            scopes.append(scope)
            await forever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    if ours_first:
        scopes[0].fail(Cancelled("ours"))
    task.cancel("theirs")
    if not ours_first:
        scopes[0].fail(Cancelled("ours"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_of_two_nested_scopes_the_outer_one_wins() -> None:
    with pytest.raises(Cancelled, match="outer"):
        with Scope() as outer, Scope() as inner:
            inner.fail(DeadlineExceeded("inner"))
            outer.fail(Cancelled("outer"))
            await forever()
    assert me().cancelling() == 0


async def test_a_failure_from_inside_does_not_leak_out() -> None:
    """``current_task().cancel()`` in a step that does not wait any more would come out past the scope."""
    with pytest.raises(Cancelled):
        with Scope() as scope:
            scope.fail(Cancelled("x"))
    await asyncio.sleep(0)  # where it would come
    assert me().cancelling() == 0


async def test_theirs_that_is_pending_beside_ours_gets_through() -> None:
    async def work() -> None:
        with Scope() as scope:
            scope.fail(Cancelled("ours"))
            me().cancel("theirs")
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_swallowing_the_cancellation_does_not_make_it_good() -> None:
    with pytest.raises(Cancelled):
        with Scope() as scope:
            soon(scope.fail, Cancelled("x"))
            try:
                await forever()
            except BaseException:
                pass
    assert me().cancelling() == 0


@pytest.mark.parametrize("error", [KeyError("a bug"), Stop(BudgetExceeded("other")), TimeoutError("its own")])
async def test_an_error_of_the_code_inside_goes_through(error: BaseException) -> None:
    for wait in (False, True):
        with pytest.raises(type(error)) as info:
            with Scope() as scope:
                scope.fail(Cancelled("x"))
                try:
                    if wait:
                        await forever()
                finally:
                    raise error
        assert info.value is error
        await asyncio.sleep(0)
        assert me().cancelling() == 0


async def test_a_straggler_that_fails_a_scope_that_was_left_harms_nobody() -> None:
    with Scope() as scope:
        pass
    assert not scope.fail(Cancelled("late"))
    await asyncio.sleep(0)
    assert me().cancelling() == 0


async def test_inside_a_task_that_was_cancelled_before_it_is_the_same() -> None:
    async def work() -> int:
        me().cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        with pytest.raises(Cancelled):
            with Scope() as scope:
                soon(scope.fail, Cancelled("x"))
                await forever()
        return me().cancelling()

    assert await asyncio.create_task(work()) == 1


def test_failures_and_cancellations_in_any_order() -> None:
    async def scenario() -> None:
        inner_error, outer_error = Cancelled("inner"), Cancelled("outer")
        scopes: list[Scope] = []

        async def work() -> None:
            with Scope() as outer:
                scopes.append(outer)
                with Scope() as inner:
                    scopes.append(inner)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)

        async def fail(number: int, error: Exception) -> None:
            await asyncio.sleep(0)
            if len(scopes) > number:
                scopes[number].fail(error)

        async def cancel() -> bool:
            await asyncio.sleep(0)
            return task.cancel()

        task = asyncio.create_task(work())
        others = [asyncio.create_task(c) for c in (fail(0, outer_error), fail(1, inner_error))]
        killer = asyncio.create_task(cancel())
        await asyncio.wait([task, killer, *others])
        if killer.result():
            assert task.cancelled() or task.exception() in (inner_error, outer_error)
            assert task.cancelling() == 1
        else:
            assert task.exception() in (None, inner_error, outer_error)
            assert task.cancelling() == 0

    assert explore(scenario, delays=5) > 100


@virtual_time
async def test_ended_waits_through_cancellations_and_raises_the_last_one() -> None:
    heard: list[float] = []
    loop = asyncio.get_running_loop()
    work = [asyncio.create_task(asyncio.sleep(seconds)) for seconds in (5, 10)]
    waiting = asyncio.create_task(ended(*work, on_cancel=lambda: heard.append(loop.time())))
    for _ in range(2):
        await asyncio.sleep(2)
        waiting.cancel()
    await asyncio.wait([waiting])
    assert loop.time() == 10
    assert waiting.cancelled()
    assert waiting.cancelling() == 2
    assert heard == [2, 4]
    assert not any(task.cancelled() for task in work)


async def test_ended_says_nothing_of_how_the_work_ended() -> None:
    async def fail() -> None:
        raise KeyError

    task = asyncio.create_task(fail())
    await ended(task)
    await ended(task)
    assert isinstance(task.exception(), KeyError)


def test_work_that_ended_waits_for_is_over_after_any_cancellation() -> None:
    def scenario() -> tuple[Coroutine[Any, Any, None], Callable[[Ending], None]]:
        work: list[asyncio.Task[None]] = []

        async def body() -> None:
            work.append(asyncio.create_task(asyncio.sleep(3)))
            await ended(*work)

        def check(ending: Ending) -> None:
            assert all(task.done() and not task.cancelled() for task in work)

        return body(), check

    assert explore_cancellation(scenario) > 10


@virtual_time
async def test_room_is_a_level_and_any_number_may_wait() -> None:
    room = Room()
    await room.wait()
    room.set(False)
    waiting = [asyncio.create_task(room.wait()) for _ in range(3)]
    await asyncio.sleep(1)
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    room.set(True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting[0].cancelled()
    assert all(task.done() for task in waiting)
    await room.wait()
    assert not room._waiting


@virtual_time
async def test_a_waiter_that_finds_the_room_gone_waits_on() -> None:
    room = Room()
    room.set(False)
    waiting = asyncio.create_task(room.wait())
    await asyncio.sleep(0)
    room.set(True)
    room.set(False)
    await asyncio.sleep(1)
    assert not waiting.done()
    room.set(True)
    await waiting
