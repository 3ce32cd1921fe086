# ruff: noqa: PT012
"""Scopes: the deadline, the reason, and whose cancellation it was."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dspy_live.core.errors import BudgetExceeded, Cancelled, ConfigurationError, DeadlineExceeded, Stop
from dspy_live.runtime.scope import Scope, fail_after, move_on_after


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def me() -> asyncio.Task:
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_a_deadline_becomes_its_error_and_leaves_the_task_intact() -> None:
    with pytest.raises(DeadlineExceeded, match=r"longer than the 0\.01 s"):
        async with fail_after(0.01):
            await forever()
    assert me().cancelling() == 0
    await asyncio.sleep(0)


async def test_the_given_error_is_raised() -> None:
    error = BudgetExceeded("spent")
    with pytest.raises(BudgetExceeded) as info:
        async with fail_after(0.001, error=error):
            await forever()
    assert info.value is error


async def test_move_on_goes_on() -> None:
    async with move_on_after(0.001) as scope:
        await forever()
    assert scope.cancelled
    async with move_on_after(10) as scope:
        await asyncio.sleep(0)
    assert not scope.cancelled
    assert me().cancelling() == 0


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "1"])
async def test_times_that_are_none_are_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="seconds must be"):
        fail_after(seconds)


async def test_a_deadline_in_the_past_fails_before_anything_runs() -> None:
    scope = Scope(asyncio.get_running_loop().time() - 2)
    with pytest.raises(DeadlineExceeded, match="2 s before the start"):
        async with scope:
            pytest.fail("it must not run")
    assert scope.remaining() == 0


async def test_the_first_reason_wins() -> None:
    scope = Scope()
    first = Cancelled("by its caller")
    assert scope.cancel(first)
    assert not scope.cancel(DeadlineExceeded("later"))
    assert scope.error is first
    with pytest.raises(Stop) as info:
        scope.check()
    assert info.value.error is first


async def test_our_cancel_is_swallowed_and_theirs_is_not() -> None:
    scope = Scope()

    async def work() -> None:
        async with scope:
            await forever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel("theirs")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert not scope.cancelled


async def test_both_at_once_are_theirs() -> None:
    scope = Scope()

    async def work() -> None:
        async with scope:
            await forever()

    for ours_first in (True, False):
        scope = Scope()
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        if ours_first:
            scope.cancel(Cancelled("ours"))
        task.cancel("theirs")
        if not ours_first:
            scope.cancel(Cancelled("ours"))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1


async def test_of_two_nested_scopes_the_outer_one_wins() -> None:
    outer, inner = Scope(), Scope()
    with pytest.raises(Cancelled, match="outer"):
        async with outer:
            async with inner:
                inner.cancel(DeadlineExceeded("inner"))
                outer.cancel(Cancelled("outer"))
                await forever()
    assert me().cancelling() == 0


async def test_a_cancel_from_inside_does_not_leak_out() -> None:
    scope = Scope()
    with pytest.raises(Cancelled):
        async with scope:
            scope.cancel(Cancelled("x"))  # this task is running: the cancellation is pending
    await asyncio.sleep(0)  # and would come here
    assert me().cancelling() == 0


async def test_theirs_that_is_pending_beside_ours_gets_through() -> None:
    scope = Scope()

    async def work() -> None:
        async with scope:
            scope.cancel(Cancelled("ours"))
            me().cancel("theirs")

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_swallowing_the_cancellation_does_not_make_it_good() -> None:
    scope = Scope()
    with pytest.raises(Cancelled):
        async with scope:
            asyncio.get_running_loop().call_soon(scope.cancel, Cancelled("x"))
            try:
                await forever()
            except BaseException:
                pass
    assert me().cancelling() == 0


async def test_a_stop_for_its_reason_becomes_the_reason_and_another_does_not() -> None:
    scope = Scope()
    with pytest.raises(Cancelled):
        async with scope:
            scope.cancel(Cancelled("x"))
            scope.check()
    with pytest.raises(Stop):
        async with Scope():
            raise Stop(BudgetExceeded("other"))


async def test_an_error_of_the_code_inside_goes_through() -> None:
    scope = Scope()
    with pytest.raises(KeyError):
        async with scope:
            scope.cancel(Cancelled("x"))
            raise KeyError("bug in a finally")
    await asyncio.sleep(0)
    assert me().cancelling() == 0


async def test_children_follow_and_parents_do_not() -> None:
    parent = Scope()
    child, other = parent.child(), parent.child()
    child.cancel(Cancelled("child"))
    assert not parent.cancelled
    assert not other.cancelled
    reason = Cancelled("parent")
    parent.cancel(reason)
    assert other.error is reason
    assert child.error is not reason
    assert parent.child().error is reason


async def test_a_closed_child_leaves_its_parent() -> None:
    parent = Scope()
    child = parent.child()
    child.close()
    parent.cancel(Cancelled("x"))
    assert not child.cancelled
    assert not parent._callbacks


async def test_the_nearer_deadline_counts() -> None:
    now = 100.0
    parent = Scope(110.0, now=lambda: now)
    assert parent.child().remaining() == 10
    assert parent.child(105.0).remaining() == 5
    assert parent.child(120.0).remaining() == 10
    assert Scope().remaining() is None
    now = 104.0
    assert parent.child(105.0).remaining() == 1
    parent.close()


async def test_the_parents_deadline_stops_the_child() -> None:
    parent = Scope(asyncio.get_running_loop().time() + 0.005)
    child = parent.child(asyncio.get_running_loop().time() + 60)
    with pytest.raises(DeadlineExceeded):
        async with child:
            await forever()
    assert child.error is parent.error


async def test_an_injected_clock_that_is_behind_is_looked_at_again() -> None:
    now = 0.0
    scope = Scope(0.01, now=lambda: now)
    await asyncio.sleep(0.03)
    assert not scope.cancelled
    now = 1.0
    await asyncio.sleep(0.03)
    assert scope.cancelled


async def test_callbacks_run_once_on_the_loop_and_one_that_fails_hinders_none() -> None:
    scope = Scope()
    loop = asyncio.get_running_loop()
    reported: list[dict] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    heard: list[tuple] = []
    scope.on_cancel(lambda error: 1 / 0)
    scope.on_cancel(lambda error: heard.append((str(error), threading.get_ident())))
    scope.on_cancel(lambda error: pytest.fail("taken back"))()
    thread = threading.Thread(target=scope.cancel, args=(Cancelled("from a thread"),))
    thread.start()
    thread.join()
    assert scope.cancelled
    assert heard == []
    await asyncio.sleep(0)
    assert heard == [("from a thread", threading.get_ident())]
    assert len(reported) == 1
    scope.on_cancel(lambda error: heard.append(("late", 0)))
    assert heard[-1] == ("late", 0)


async def test_a_thread_stops_a_task() -> None:
    scope = Scope()
    with pytest.raises(Cancelled):
        async with scope:
            threading.Thread(target=scope.cancel, args=(Cancelled("x"),)).start()
            await forever()


async def test_one_scope_guards_one_task() -> None:
    scope = Scope()
    async with scope:
        with pytest.raises(RuntimeError, match="child"):
            await scope.__aenter__()


async def test_leaving_stops_the_timer() -> None:
    scope = fail_after(0.005)
    async with scope:
        pass
    await asyncio.sleep(0.02)
    assert not scope.cancelled
