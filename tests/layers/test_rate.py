"""Requests and tokens per minute."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LMFailed, RateLimited
from dspy_live.core.events import Completion, Predicted, Usage
from dspy_live.core.sink import DISCARD
from dspy_live.layers.rate import Rate
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def used(tokens: int, cached: bool = False) -> Usage:
    return Usage("m", "p", 1, total_tokens=tokens, cached=cached)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"requests_per_minute": 0},
        {"requests_per_minute": -1},
        {"tokens_per_minute": float("nan")},
        {"requests_per_minute": 1, "max_wait": -1},
        {"requests_per_minute": 1, "burst": 0},
        {"requests_per_minute": 1, "burst": 1.5},
    ],
)
def test_bad_values_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigurationError):
        Rate(**bad)


@virtual_time
async def test_a_burst_and_then_one_after_the_other_in_order() -> None:
    layer = Rate(requests_per_minute=60, burst=0.1)
    script = ScriptedService([Completion({})])
    times: dict[int, float] = {}

    async def one(n: int) -> None:
        await collect(layer(script), Call({"n": n}))
        times[n] = now()

    await asyncio.gather(*(one(n) for n in range(10)))
    assert times == {**dict.fromkeys(range(6), 0), 6: 1, 7: 2, 8: 3, 9: 4}
    assert [call.inputs["n"] for call in script.calls] == list(range(10))
    statistics = layer.statistics()
    assert (statistics.admitted, statistics.delayed, statistics.waited_seconds) == (10, 4, 10)


@virtual_time
async def test_never_more_than_the_limit_in_any_minute_after_the_burst() -> None:
    layer = Rate(requests_per_minute=30, max_wait=600)
    script = ScriptedService([Completion({})])
    times: list[float] = []

    async def one() -> None:
        await collect(layer(script), Call({}))
        times.append(now())

    await asyncio.gather(*(one() for _ in range(120)))
    assert now() == pytest.approx(180)
    for start in times:
        assert sum(start <= t < start + 60 for t in times) <= 60  # the burst of 30, and 30


@virtual_time
async def test_who_would_wait_too_long_is_refused_at_once_and_takes_nothing() -> None:
    layer = Rate(requests_per_minute=6, max_wait=15)
    script = ScriptedService([Completion({})])
    tasks = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(7)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited, match=r"6 requests per minute is reached: this call would wait 20\.0 s") as info:
        await collect(layer(script), Call({}))
    assert info.value.retry_after == pytest.approx(20)
    assert info.value.status == 429
    with pytest.raises(RateLimited):
        await collect(layer(script), Call({}))
    assert layer.statistics().refused == 2
    await asyncio.gather(*tasks)
    assert now() == 10


@virtual_time
async def test_who_would_wait_past_the_deadline_is_refused_at_once() -> None:
    layer = Rate(requests_per_minute=6)
    script = ScriptedService([Completion({})])
    for _ in range(6):
        await collect(layer(script), Call({}))
    with pytest.raises(RateLimited):
        await collect(layer(script), Call({}, deadline=9))
    await collect(layer(script), Call({}, deadline=11))
    assert now() == 10


@virtual_time
async def test_who_leaves_gives_its_turn_back() -> None:
    layer = Rate(requests_per_minute=6)
    script = ScriptedService([Completion({})])
    for _ in range(6):
        await collect(layer(script), Call({}))
    leaving = asyncio.create_task(collect(layer(script), Call({})))
    await asyncio.sleep(1)
    leaving.cancel()
    await asyncio.wait([leaving])
    await collect(layer(script), Call({}))
    assert now() == 10


@virtual_time
async def test_what_was_really_used_is_set_against_the_estimate() -> None:
    layer = Rate(tokens_per_minute=6000, estimate=lambda call: 1000)
    await collect(layer(ScriptedService([used(200), used(300), used(9999, cached=True), Predicted({})])), Call({}))
    assert layer.statistics().tokens_left == 5500
    await collect(layer(ScriptedService([Completion({"usage": {"total_tokens": 3500}})])), Call({}))
    assert layer.statistics().tokens_left == 2000
    # Nothing reported: the estimate stands.
    await collect(layer(ScriptedService([Predicted({})])), Call({}))
    assert layer.statistics().tokens_left == 1000


@virtual_time
async def test_what_a_call_has_reported_before_it_failed_counts() -> None:
    layer = Rate(tokens_per_minute=6000, estimate=lambda call: 1000)
    for failure, left in ((LMFailed("cut"), 5800), (asyncio.CancelledError(), 5600)):
        with pytest.raises(type(failure)):
            await collect(layer(ScriptedService([used(200), failure])), Call({}))
        assert layer.statistics().tokens_left == left


@virtual_time
async def test_tokens_that_were_overspent_make_the_next_wait() -> None:
    layer = Rate(tokens_per_minute=6000, estimate=lambda call: 100)
    await collect(layer(ScriptedService([used(8000), Predicted({})])), Call({}))
    assert layer.statistics().tokens_left == -2000
    await collect(layer(ScriptedService([Predicted({})])), Call({}))
    assert now() == pytest.approx(21)
    with pytest.raises(RateLimited, match="6000 tokens per minute"):
        await collect(
            Rate(tokens_per_minute=6000, estimate=lambda call: 20000)(ScriptedService([Predicted({})])), Call({})
        )


@virtual_time
async def test_without_a_token_limit_the_callers_own_sink_is_handed_through() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    await Rate(requests_per_minute=1)(script)(Call({}), DISCARD)
    assert script.attempts[0].sink is DISCARD
