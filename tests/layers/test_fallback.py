"""When one service fails, another answers."""

from __future__ import annotations

import pytest
from tests.layers.doors import without_restarts

from dspy_live.core.call import Call
from dspy_live.core.errors import CircuitOpen, ConfigurationError, InputError, LMFailed, Overloaded, StreamBroken
from dspy_live.core.events import Completion, Restart, TextDelta
from dspy_live.layers.fallback import Fallback
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time

DOWN = LMFailed("down")


def test_it_needs_another_service() -> None:
    with pytest.raises(ConfigurationError, match="at least one other"):
        Fallback()


@virtual_time
async def test_the_others_are_tried_in_order() -> None:
    first, second, third = ScriptedService(DOWN), ScriptedService([Wait(1), DOWN]), ScriptedService([Completion({})])
    layer = Fallback(second, third)
    assert await collect(layer(first), Call({})) == [Completion({})]
    assert layer.statistics().tried == (1, 1)


@virtual_time
async def test_a_good_service_is_left_alone() -> None:
    other = ScriptedService([Completion({})])
    await collect(Fallback(other)(ScriptedService([Completion({})])), Call({}))
    assert other.attempts == []


@virtual_time
async def test_refusals_by_the_services_own_limits_count() -> None:
    for refusal in (CircuitOpen("open", local=True), Overloaded("full", local=True)):
        layer = Fallback(ScriptedService([Completion({})]))
        assert await collect(layer(ScriptedService(refusal)), Call({})) == [Completion({})]


@virtual_time
async def test_the_callers_mistake_is_not_tried_elsewhere() -> None:
    other = ScriptedService([Completion({})])
    with pytest.raises(InputError):
        await collect(Fallback(other)(ScriptedService(InputError("bad"))), Call({}))
    assert other.attempts == []


@virtual_time
async def test_after_the_first_token_a_restart_comes_first() -> None:
    other = ScriptedService([TextDelta("b"), Completion({})])
    broken = ScriptedService([TextDelta("a"), DOWN])
    events = await collect(Fallback(other)(broken), Call({}))
    assert events == [TextDelta("a"), Restart("", 0, "LMFailed: another try"), TextDelta("b"), Completion({})]


@virtual_time
async def test_a_door_that_cannot_take_words_back_ends_the_call_before_another_service_is_asked() -> None:
    other = ScriptedService([TextDelta("b"), Completion({})])
    broken = ScriptedService([TextDelta("a"), DOWN])
    with pytest.raises(StreamBroken):
        await without_restarts(Fallback(other)(broken), Call({}))
    assert other.attempts == []


@virtual_time
async def test_when_all_fail_the_last_failure_comes_out() -> None:
    layer = Fallback(ScriptedService(LMFailed("second")))
    with pytest.raises(LMFailed, match="second"):
        await collect(layer(ScriptedService(DOWN)), Call({}))
    assert layer.statistics().failed == 1
