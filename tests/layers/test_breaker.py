"""A service that fails is left alone, then tried, then trusted again."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, CircuitOpen, ConfigurationError, InputError, LMFailed, Stop
from dspy_live.core.events import Completion, TextDelta
from dspy_live.layers.breaker import Breaker
from dspy_live.runtime.channel import read
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time

DOWN = ScriptedService(LMFailed("down"))
GOOD = ScriptedService([Completion({})])


def breaker(**kw) -> Breaker:
    return Breaker(**{"failures": 0.5, "minimum": 4, "window": 10, "open_for": 5, **kw})


async def ask(layer: Breaker, service: object, times: int = 1) -> list[str]:
    answers = []
    for _ in range(times):
        try:
            await collect(layer(service), Call({}))  # type: ignore[arg-type]
            answers.append("ok")
        except (LMFailed, CircuitOpen, InputError) as exc:
            answers.append(type(exc).__name__)
    return answers


@pytest.mark.parametrize(
    "bad",
    [
        {"failures": 0},
        {"failures": 1.1},
        {"failures": float("nan")},
        {"minimum": 0},
        {"window": 0},
        {"open_for": -1},
        {"probes": 0},
    ],
)
def test_bad_values_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigurationError):
        breaker(**bad)


@virtual_time
async def test_it_opens_at_its_share_and_not_before_it_has_enough_calls() -> None:
    layer = breaker()
    assert await ask(layer, DOWN, 3) == ["LMFailed"] * 3
    assert layer.state == "closed"
    assert await ask(layer, DOWN, 2) == ["LMFailed", "CircuitOpen"]
    assert layer.state == "open"


@virtual_time
async def test_a_share_below_is_borne() -> None:
    layer = breaker()
    for _ in range(20):
        assert await ask(layer, GOOD, 2) + await ask(layer, DOWN) == ["ok", "ok", "LMFailed"]
    assert layer.state == "closed"


@virtual_time
async def test_old_failures_are_forgotten() -> None:
    layer = breaker()
    await ask(layer, DOWN, 3)
    await asyncio.sleep(11)
    await ask(layer, DOWN, 1)
    assert layer.state == "closed"
    assert (layer.statistics().calls, layer.statistics().failed) == (1, 1)


@virtual_time
async def test_the_refusal_says_when_to_come_back_and_asks_nobody() -> None:
    layer = breaker()
    service = ScriptedService(LMFailed("down"))
    await ask(layer, service, 4)
    await asyncio.sleep(2)
    with pytest.raises(CircuitOpen, match="none are made for 5 s; try again in 3 s") as info:
        await collect(layer(service), Call({}))
    assert info.value.retry_after == 3
    assert len(service.attempts) == 4
    assert layer.statistics().refused == 1


@virtual_time
async def test_a_good_probe_closes_it_and_a_bad_one_opens_it_again() -> None:
    layer = breaker()
    await ask(layer, DOWN, 4)
    await asyncio.sleep(5)
    assert await ask(layer, DOWN, 2) == ["LMFailed", "CircuitOpen"]
    assert layer.statistics().opened == 2
    await asyncio.sleep(5)
    assert await ask(layer, GOOD, 10) == ["ok"] * 10
    assert layer.state == "closed"
    # What happened before it closed is forgotten.
    assert await ask(layer, DOWN, 4) == ["LMFailed"] * 4


@virtual_time
async def test_only_so_many_probes_at_once_and_all_must_succeed() -> None:
    layer = breaker(probes=2)
    await ask(layer, DOWN, 4)
    await asyncio.sleep(5)
    script = ScriptedService()
    probes = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(2)]
    await script.attempt(1)
    assert await ask(layer, GOOD) == ["CircuitOpen"]
    script.attempts[0].end(Completion({}))
    await probes[0]
    assert layer.state == "half_open"
    script.attempts[1].fail(LMFailed("still down"))
    with pytest.raises(LMFailed):
        await probes[1]
    assert layer.state == "open"


@virtual_time
async def test_a_probe_that_is_cancelled_gives_its_place_to_another() -> None:
    layer = breaker()
    await ask(layer, DOWN, 4)
    await asyncio.sleep(5)
    script = ScriptedService()
    probe = asyncio.create_task(collect(layer(script), Call({})))
    await script.attempt()
    probe.cancel()
    await asyncio.wait([probe])
    assert layer.state == "half_open"
    assert await ask(layer, GOOD) == ["ok"]
    assert layer.state == "closed"


@virtual_time
async def test_calls_from_before_it_opened_say_nothing_about_the_probes() -> None:
    layer = breaker()
    script = ScriptedService()
    old = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(2)]
    await script.attempt(1)
    await asyncio.sleep(1)
    await ask(layer, DOWN, 4)
    await asyncio.sleep(5)
    probe = asyncio.create_task(collect(layer(script), Call({})))
    await script.attempt(2)
    script.attempts[0].end()
    script.attempts[1].fail(LMFailed("old"))
    await asyncio.wait(old)
    assert layer.state == "half_open"
    script.attempts[2].end()
    await probe
    assert layer.state == "closed"


@virtual_time
async def test_only_the_services_failures_count() -> None:
    layer = breaker()
    await ask(layer, ScriptedService(InputError("bad")), 10)
    assert layer.state == "closed"
    script = ScriptedService()
    for n in range(10):
        task = asyncio.create_task(collect(layer(script), Call({})))
        await script.attempt(n)
        task.cancel()
        await asyncio.wait([task])
    assert layer.state == "closed"


@virtual_time
async def test_a_failure_that_the_reader_swallows_counts_all_the_same() -> None:
    layer = breaker()
    service = layer(ScriptedService([TextDelta("a"), Wait(1), LMFailed("cut")]))
    for _ in range(4):
        async with read(service, Call({})) as reader:
            with pytest.raises(LMFailed):
                async for _ in reader:
                    pass
    assert layer.state == "open"


@virtual_time
async def test_a_probe_that_is_cancelled_after_its_first_token_proves_that_the_service_is_well() -> None:
    layer = breaker()
    await ask(layer, DOWN, 4)
    await asyncio.sleep(5)
    script = ScriptedService()
    probe = asyncio.create_task(collect(layer(script), Call({})))
    (await script.attempt()).send(TextDelta("a"))
    probe.cancel()
    await asyncio.wait([probe])
    assert layer.state == "closed"


@virtual_time
async def test_a_run_that_is_stopped_by_its_own_budget_says_nothing_about_the_service() -> None:
    layer = breaker()
    await ask(layer, DOWN, 4)
    await asyncio.sleep(5)
    with pytest.raises(Stop):
        await collect(layer(ScriptedService(Stop(BudgetExceeded("spent")))), Call({}))
    assert layer.state == "half_open"
    assert await ask(layer, GOOD) == ["ok"]
