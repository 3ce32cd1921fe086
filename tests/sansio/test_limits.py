"""The arithmetic behind the limits: buckets, backoff, budgets, AIMD, the breaker, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.buffer_bound import next_bound
from dspy_live.sansio.checks import not_negative, positive, share, whole
from dspy_live.sansio.limits.aimd import Aimd
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.sansio.limits.breaker import Breaker
from dspy_live.sansio.limits.bucket import Bucket
from dspy_live.sansio.limits.retry_budget import RetryBudget

BAD = [0, -1, float("nan"), float("inf"), float("-inf"), "1", None, True]


@pytest.mark.parametrize("bad", BAD)
def test_an_invalid_limit_is_refused_by_name(bad: float) -> None:
    with pytest.raises(ConfigurationError, match=r"the thing must be a number of seconds above 0; got"):
        positive("the thing", bad, "seconds")
    with pytest.raises(ConfigurationError, match="the thing"):
        whole("the thing", bad)
    if bad != 0 or isinstance(bad, bool):
        with pytest.raises(ConfigurationError, match="the thing"):
            not_negative("the thing", bad)
    with pytest.raises(ConfigurationError, match="the thing"):
        share("the thing", bad)


def test_a_valid_limit_comes_back() -> None:
    assert positive("x", 0.1) == 0.1
    assert whole("x", 0, least=0) == 0
    assert not_negative("x", 0) == 0
    assert share("x", 1) == 1


# A bucket.


@given(
    rate=st.floats(0.1, 100),
    capacity=st.floats(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 50)), max_size=30),
)
def test_a_bucket_never_lets_more_through_than_it_may(rate: float, capacity: float, steps: list) -> None:
    bucket = Bucket(rate, capacity, 0.0)
    now = latest = total = 0.0
    for pause, amount in steps:
        now += pause
        covered = now + bucket.take(now, amount)
        assert covered >= latest - 1e-6  # in the order of coming
        latest = covered
        total += amount
        # Whoever waits as told is covered: at that moment no more was let through than had come in.
        assert total <= capacity + rate * covered + 1e-6 * max(1.0, total)


def test_a_bucket_never_holds_more_than_its_capacity() -> None:
    bucket = Bucket(10, 5, 0)
    assert bucket.level(1000) == 5
    bucket.give_back(1000, 100)
    assert bucket.level(1000) == 5


def test_a_bucket_bears_a_clock_that_goes_back() -> None:
    bucket = Bucket(1, 5, 100)
    bucket.take(100, 5)
    assert bucket.wait(99, 1) == 1


# Backoff.


@given(
    retry=st.integers(0, 10_000),
    chance=st.floats(0, 1, exclude_max=True),
    after=st.one_of(st.none(), st.floats(0, 1000)),
    base=st.floats(0.001, 10),
    cap=st.floats(0.001, 100),
)
def test_a_wait_is_finite_within_its_cap_and_not_before_it_was_asked_for(
    retry: int, chance: float, after: float | None, base: float, cap: float
) -> None:
    delay = Backoff(base, cap).delay(retry, chance, after)
    assert math.isfinite(delay)
    assert (after or 0) <= delay <= (after or 0) + cap


def test_full_jitter_and_growth() -> None:
    backoff = Backoff(base=1, cap=10)
    assert [backoff.delay(n, 1.0) for n in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.delay(5, 0.0) == 0
    assert backoff.delay(5, 0.5) == 5
    assert backoff.delay(5, 1.0, after=60) == 61


@pytest.mark.parametrize("bad", [{"base": 0}, {"cap": -1}, {"factor": 0.5}, {"base": float("nan")}])
def test_a_backoff_that_is_none_is_refused(bad: dict) -> None:
    with pytest.raises(ConfigurationError):
        Backoff(**bad)


# A retry budget.


def test_retries_are_a_share_of_the_calls_that_succeed() -> None:
    budget = RetryBudget(0, ratio=0.2, per_second=0.001, most=5)
    for _ in range(5):
        assert budget.withdraw(0)
    made = 0
    for _ in range(100):
        budget.deposit(0)
        made += budget.withdraw(0)
    assert 19 <= made <= 20  # of 100 calls; a fifth of one may be lost to rounding


def test_a_few_retries_are_always_allowed() -> None:
    budget = RetryBudget(0, ratio=0, per_second=1, most=2)
    assert [budget.withdraw(0) for _ in range(3)] == [True, True, False]
    assert budget.withdraw(1)
    assert not budget.withdraw(1.5)


# AIMD.


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=200))
def test_the_limit_stays_within_its_bounds(steps: list) -> None:
    aimd = Aimd(2, 20)
    for now, (good, in_flight) in enumerate(steps):
        if good:
            aimd.good(in_flight)
        else:
            aimd.bad(now, now)
        assert 2 <= aimd.limit <= 20


def test_one_overload_is_one_fall() -> None:
    aimd = Aimd(1, 100, start=64, decrease=0.5)
    assert aimd.bad(now=10, began=9)
    assert not any(aimd.bad(now=10 + n, began=9.5) for n in range(20))
    assert aimd.limit == 32
    assert aimd.bad(now=40, began=11)
    assert aimd.limit == 16


# How large a buffer is.


@given(low=st.integers(1, 100), extra=st.integers(0, 1000), times=st.lists(st.floats(0, 10), max_size=30))
def test_an_adaptive_bound_stays_within_its_bounds(low: int, extra: int, times: list[float]) -> None:
    bound = low
    for full_for in times:
        bound = next_bound(bound, low, low + extra, full_for)
        assert low <= bound <= low + extra


# The breaker.


def test_the_window_forgets_in_steps() -> None:
    breaker = Breaker(minimum=1000, window=10)
    for now in range(10):
        breaker.record(now, ok=now % 2 == 0, began=now)
    assert breaker.counts(9.5) == (10, 5)
    assert breaker.counts(14.5) == (5, 3)
    assert breaker.counts(100) == (0, 0)


def test_memory_of_the_window_is_constant() -> None:
    breaker = Breaker(minimum=10**9, window=10)
    for n in range(10_000):
        breaker.record(n * 0.01, True, n * 0.01)
        breaker.counts(n * 0.01)
    assert len(breaker._slices) <= 11


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "good", "bad", "abandon"]), st.floats(0, 8, allow_subnormal=False)),
        max_size=60,
    )
)
@example([("ask", 0.0), ("ask", 1.7846245941158143), ("good", 7.0), ("bad", 3.0203770507933343)])
@example([("ask", 0.0), ("ask", 0.9177298240523302), ("good", 1.7593093127579906), ("bad", 1.0), ("ask", 0.0)])
def test_it_can_always_be_asked_again(steps: list) -> None:
    """Whatever happens, once all that was let through has ended, the breaker lets somebody through in finite time."""
    breaker = Breaker(minimum=2, window=10, open_for=5, probes=2)
    now = 0.0
    running: list[float] = []
    for what, pause in steps:
        now += pause
        if what == "ask":
            wait = breaker.admit(now)
            if wait is None:
                running.append(now)
            else:
                assert 0 < wait <= breaker.open_for
        elif running:
            began = running.pop(0)
            if what == "abandon":
                breaker.abandon(began)
            else:
                breaker.record(now, what == "good", began)
    for began in running:
        breaker.abandon(began)
    assert breaker.admit(now + 5) is None
