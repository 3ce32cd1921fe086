"""Requests and tokens per minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LMFailed, RateLimited
from dspy_live.core.events import Completion, Predicted, Result, Usage
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers.rate import Rate
from dspy_live.testing.scripted import ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import run_virtual, virtual_time


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
async def test_the_first_minute_has_no_more_than_the_limit() -> None:
    """Rate(requests_per_minute=300) let 304 out in the first second and 600 in the first minute: a full bucket, and
    what flowed into it meanwhile."""
    layer = Rate(requests_per_minute=300, max_wait=600)
    script = ScriptedService([Completion({})])
    times: list[float] = []

    async def one() -> None:
        await collect(layer(script), Call({}))
        times.append(now())

    await asyncio.gather(*(one() for _ in range(900)))
    assert times == [0.0] * 300 + [60.0] * 300 + [120.0] * 300


@dataclass
class Asked:
    """One call of the properties below; in seconds and tokens."""

    pause: float
    takes: float
    estimate: float
    used: float
    leaves_after: float | None
    blocks: float
    went_out: float = -1.0


asked = st.builds(
    Asked,
    pause=st.one_of(st.just(0.0), st.floats(0, 0.3), st.floats(0, 90)),
    takes=st.floats(0, 100),
    estimate=st.integers(0, 60),
    used=st.integers(0, 100),
    leaves_after=st.one_of(st.none(), st.none(), st.floats(0.001, 70)),
    blocks=st.one_of(st.just(0.0), st.just(0.0), st.floats(0, 3)),
)


async def arrivals(layer: Rate, calls: list[Asked]) -> list[Asked]:
    """Send the calls as they say; return those that went out, in that order."""
    out: list[Asked] = []

    async def service(call: Call, sink: Sink) -> Result:
        one: Asked = call.inputs["asked"]
        one.went_out = now()
        out.append(one)
        await asyncio.sleep(one.takes)
        return Completion({"usage": {"total_tokens": one.used}})

    async def send(one: Asked) -> None:
        with suppress(RateLimited, TimeoutError):
            await asyncio.wait_for(layer(service)(Call({"asked": one}), DISCARD), one.leaves_after)

    loop = asyncio.get_running_loop()
    tasks = []
    for one in calls:
        await asyncio.sleep(one.pause)
        tasks.append(asyncio.create_task(send(one)))
        await asyncio.sleep(0)
        loop.block(one.blocks)  # type: ignore[attr-defined]
    await asyncio.gather(*tasks)
    return out


def fullest_minute(out: list[Asked], weight: Callable[[Asked], float]) -> float:
    """The most that went out in 60 seconds; a minute that begins with a call is as full as any."""
    return max(
        (sum(weight(o) for o in out if first.went_out <= o.went_out < first.went_out + 60 - 1e-6) for first in out),
        default=0,
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(asked, max_size=40), st.integers(1, 12), st.sampled_from([0.01, 0.3, 1.0]))
def test_no_minute_has_more_requests_than_the_limit(calls: list[Asked], limit: int, burst: float) -> None:
    out = run_virtual(arrivals(Rate(requests_per_minute=limit, burst=burst, max_wait=300), deepcopy(calls)))
    assert fullest_minute(out, lambda one: 1) <= limit


@settings(max_examples=200, deadline=None)
@given(st.lists(asked, max_size=40), st.sampled_from([0.01, 0.3, 1.0]))
def test_no_minute_has_more_tokens_than_the_limit_and_the_estimates_error(calls: list[Asked], burst: float) -> None:
    layer = Rate(tokens_per_minute=100, burst=burst, max_wait=300, estimate=lambda call: call.inputs["asked"].estimate)
    out = run_virtual(arrivals(layer, deepcopy(calls)))
    # A call that left in the middle has used nobody knows what: its estimate stands.
    assert fullest_minute(out, lambda one: min(one.estimate, one.used)) <= 100 + 1e-6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=60, max_size=120), st.sampled_from([0.1, 1.0]))
def test_a_limit_in_use_loses_next_to_nothing(pauses: list[float], burst: float) -> None:
    """Who keeps the promise by letting nothing out keeps it badly."""
    calls = [Asked(pause, 0.0, 0, 0, None, 0.0) for pause in pauses]
    layer = Rate(requests_per_minute=20, burst=burst, max_wait=10_000)
    out = run_virtual(arrivals(layer, calls))
    assert len(out) == len(calls)
    # Every 20 calls take a minute at most, but for those that came later than they could have gone out.
    assert out[-1].went_out <= sum(pauses) + 60.125 * (len(calls) / 20)


@virtual_time
async def test_a_call_that_was_woken_late_leaves_the_window_late() -> None:
    layer = Rate(requests_per_minute=1, max_wait=300)
    calls = [Asked(0.0, 0.0, 0, 0, None, 0.0) for _ in range(3)]
    running = asyncio.create_task(arrivals(layer, calls))
    await asyncio.sleep(59)
    asyncio.get_running_loop().block(10)  # type: ignore[attr-defined]
    await running
    assert [one.went_out for one in calls] == [0.0, 69.0, 129.0]


@virtual_time
async def test_below_one_per_minute() -> None:
    calls = [Asked(0.0, 0.0, 0, 0, None, 0.0) for _ in range(3)]
    await arrivals(Rate(requests_per_minute=0.5, max_wait=300), calls)
    assert [one.went_out for one in calls] == [0.0, 120.0, 240.0]


@virtual_time
async def test_a_wait_that_is_too_long_is_refused_at_once_and_takes_nothing() -> None:
    layer = Rate(requests_per_minute=6, max_wait=60)
    script = ScriptedService([Completion({})])
    tasks = [asyncio.create_task(collect(layer(script), Call({}))) for _ in range(12)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited, match=r"6 requests per minute is reached: this call would wait 120\.0 s") as info:
        await collect(layer(script), Call({}))
    assert info.value.retry_after == pytest.approx(120)
    assert info.value.status == 429
    with pytest.raises(RateLimited):
        await collect(layer(script), Call({}))
    assert layer.statistics().refused == 2
    await asyncio.gather(*tasks)
    assert now() == 60


@virtual_time
async def test_a_wait_past_the_deadline_is_refused_at_once() -> None:
    layer = Rate(requests_per_minute=6)
    script = ScriptedService([Completion({})])
    for _ in range(6):
        await collect(layer(script), Call({}))
    with pytest.raises(RateLimited):
        await collect(layer(script), Call({}, deadline=59))
    await collect(layer(script), Call({}, deadline=61))
    assert now() == 60


@virtual_time
async def test_a_call_that_leaves_gives_its_turn_back() -> None:
    layer = Rate(requests_per_minute=6)
    script = ScriptedService([Completion({})])
    for _ in range(6):
        await collect(layer(script), Call({}))
    assert layer.statistics().requests_left == 0
    leaving = asyncio.create_task(collect(layer(script), Call({})))
    await asyncio.sleep(1)
    assert layer.statistics().requests_left == -1
    leaving.cancel()
    await asyncio.wait([leaving])
    assert layer.statistics().requests_left == 0
    await collect(layer(script), Call({}))
    assert now() == 60


@virtual_time
async def test_the_tokens_used_are_set_against_the_estimate() -> None:
    layer = Rate(tokens_per_minute=6000, estimate=lambda call: 1000)
    await collect(layer(ScriptedService([used(200), used(300), used(9999, cached=True), Predicted({})])), Call({}))
    assert layer.statistics().tokens_left == 5500
    await collect(layer(ScriptedService([Completion({"usage": {"total_tokens": 3500}})])), Call({}))
    assert layer.statistics().tokens_left == 2000
    # Nothing reported: the estimate stands.
    await collect(layer(ScriptedService([Predicted({})])), Call({}))
    assert layer.statistics().tokens_left == 1000


@virtual_time
async def test_tokens_that_a_failed_call_has_reported_count() -> None:
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
    assert now() == 60


@virtual_time
async def test_a_call_that_never_fits_is_told_so() -> None:
    with pytest.raises(RateLimited, match="estimated at 20000 tokens, and 6000 tokens per minute are the limit"):
        await collect(
            Rate(tokens_per_minute=6000, estimate=lambda call: 20000)(ScriptedService([Predicted({})])), Call({})
        )


@virtual_time
async def test_without_a_token_limit_the_callers_own_sink_is_handed_through() -> None:
    script = ScriptedService([Wait(1), Completion({})])
    await Rate(requests_per_minute=1)(script)(Call({}), DISCARD)
    assert script.attempts[0].sink is DISCARD
