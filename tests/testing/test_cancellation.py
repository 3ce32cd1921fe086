"""The exploration of cancellations finds what it is there to find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dspy_live.testing import Ending, explore_cancellation
from dspy_live.testing.cancellation import WAYS


def of(
    work: Callable[[], Coroutine[Any, Any, Any]], check: Callable[[Ending], object] = lambda ending: None
) -> Callable[[], tuple[Coroutine[Any, Any, Any], Callable[[Ending], object]]]:
    return lambda: (work(), check)


def test_it_ends_the_work_at_each_step_in_each_way() -> None:
    endings: list[tuple[str, bool]] = []
    slept: list[int] = []

    async def work() -> str:
        slept.append(0)
        for _ in range(5):
            await asyncio.sleep(10)
            slept[-1] += 1
        return "done"

    def check(ending: Ending) -> None:
        endings.append((ending.way, ending.complete))
        assert not ending.complete or ending.result == "done"
        ended = isinstance(ending.error, asyncio.CancelledError | TimeoutError)
        assert ended or ending.result == "done"

    count = explore_cancellation(of(work, check))
    assert count == len(endings) == len(slept) > 4 * 6
    assert [way for way, complete in endings if complete] == list(WAYS)
    assert set(slept) == set(range(6)), "between any two steps"


@pytest.mark.parametrize("way", ["cancel", "cancel twice", "timeout"])
def test_a_cancellation_that_is_taken_back_by_the_wrong_one_is_found(way: str) -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()

    with pytest.raises(AssertionError, match="taken back") as info:
        explore_cancellation(of(work), ways=[way])
    assert info.value.__notes__ == [f"ended by {way!r} at step 0"]


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_is_left_behind_is_found(way: str) -> None:
    left: list[asyncio.Future[Any]] = []

    async def work() -> None:
        await asyncio.sleep(1)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            left.append(asyncio.ensure_future(asyncio.Event().wait()))
            raise

    with pytest.raises(AssertionError, match="tasks outlive their call"):
        explore_cancellation(of(work), ways=[way])


@pytest.mark.parametrize("way", WAYS)
def test_an_unretrieved_failure_is_found(way: str) -> None:
    async def fail() -> None:
        raise LookupError

    async def work() -> None:
        failing = asyncio.ensure_future(fail())
        await asyncio.sleep(1)
        failing.exception()

    with pytest.raises(AssertionError, match="reported to the loop"):
        explore_cancellation(of(work), ways=[way])


def test_a_check_that_fails_names_the_schedule() -> None:
    def check(ending: Ending) -> None:
        assert ending.complete, "it was ended"

    async def work() -> None:
        await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="it was ended") as info:
        explore_cancellation(of(work, check), ways=["group"])
    assert info.value.__notes__ == ["ended by 'group' at step 0"]


def test_work_without_an_end_is_refused() -> None:
    async def work() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="more than 50 steps"):
        explore_cancellation(of(work), most=50)
