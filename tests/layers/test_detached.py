"""A caller that leaves is not held up; the work that it leaves behind is cancelled, cut off and waited for inside."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, ConfigurationError, LMFailed, Stop
from dspy_live.core.events import Completion, Result, TextDelta
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers._first_word import FirstWord
from dspy_live.layers.detached import Detached, leaving
from dspy_live.layers.limit import Limit
from dspy_live.testing import Recorder, ScriptedService, Wait, collect, virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("patience", [-1, float("nan"), True])
def test_bad_values_are_refused(patience: float) -> None:
    with pytest.raises(ConfigurationError, match="patience must"):
        Detached(patience)


@virtual_time
async def test_a_call_that_is_not_left_is_untouched() -> None:
    layer = Detached()
    script = ScriptedService([Wait(5), TextDelta("a"), Completion({})])
    assert await collect(layer(script), Call({})) == [TextDelta("a"), Completion({})]
    for failure in (LMFailed("down"), Stop(Cancelled("stopped"))):
        with pytest.raises(type(failure)):
            await collect(layer(ScriptedService([Wait(1), failure])), Call({}))
    assert layer.statistics().left == 0


@virtual_time
async def test_a_call_that_can_not_block_stays_in_the_callers_task() -> None:
    tasks: list[Any] = []

    async def inner(call: Call, sink: Sink) -> Result:
        tasks.append(asyncio.current_task())
        return Completion({})

    blocks = [False, True]
    service = Detached(when=lambda: blocks.pop(0))(inner)
    await service(Call({}), DISCARD)
    await service(Call({}), DISCARD)
    assert [task is asyncio.current_task() for task in tasks] == [True, False]


@virtual_time
async def test_a_caller_that_leaves_waits_for_a_quick_end_and_no_longer() -> None:
    for hold_exit, left_at in ((False, 1), (True, 1.5)):
        began = now()
        layer = Detached(0.5)
        script = ScriptedService(hold_exit=hold_exit)
        task = asyncio.create_task(collect(layer(script), Call({})))
        attempt = await script.attempt()
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert now() - began == pytest.approx(left_at)
        assert attempt.cancelled
        assert layer.statistics().leaving == leaving() == hold_exit
        attempt.may_end.set()
        await asyncio.sleep(1)
        assert (layer.statistics().leaving, layer.statistics().left, leaving()) == (0, 1, 0)


@virtual_time
async def test_a_slot_inside_is_held_until_the_work_has_ended() -> None:
    limit = Limit(1)
    script = ScriptedService(hold_exit=True)
    service = Detached(0)(limit(script))
    first = asyncio.create_task(collect(service, Call({})))
    attempt = await script.attempt()
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(collect(service, Call({})))
    await asyncio.sleep(60)
    assert len(script.attempts) == 1
    attempt.may_end.set()
    (await script.attempt(1)).end()
    script.attempts[1].may_end.set()
    await second


@virtual_time
async def test_a_caller_that_has_left_hears_nothing_more() -> None:
    """A wrapper inside that has bound the sink's ``push`` is cut off too."""
    pushes: list[Any] = []

    async def deaf(call: Call, sink: Sink) -> Result:
        word = FirstWord(sink)
        word.push(TextDelta("a"))
        pushes.append(word.push)
        try:
            await asyncio.sleep(60)
        finally:
            assert word.push(TextDelta("b"))
            await word.room()
            await asyncio.sleep(60)

    sink = Recorder()
    task = asyncio.create_task(Detached(0.5)(deaf)(Call({}), sink))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert pushes[0](TextDelta("c"))
    assert sink.events == [TextDelta("a"), TextDelta("b")], "until it had left it was there to hear"
    await asyncio.sleep(100)


@virtual_time
async def test_work_that_is_cancelled_from_elsewhere_is_no_cancellation_of_its_caller() -> None:
    with pytest.raises(Cancelled):
        await collect(Detached()(ScriptedService([asyncio.CancelledError()])), Call({}))


@virtual_time
async def test_a_failure_on_the_way_out_is_nobodys() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    async def fails(call: Call, sink: Sink) -> Result:
        try:
            await asyncio.sleep(60)
        finally:
            raise LMFailed("on the way out")

    task = asyncio.create_task(Detached()(fails)(Call({}), DISCARD))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    del task  # its traceback holds the work
    gc.collect()
    assert reports == []
