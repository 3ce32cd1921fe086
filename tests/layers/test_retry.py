"""Another try: when, after how long, and what the reader sees of it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from tests.layers.doors import without_restarts

from dspy_live.core.call import Call, Origin
from dspy_live.core.errors import (
    BudgetExceeded,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    InputError,
    LMFailed,
    ProgramFailed,
    RateLimited,
    StreamBroken,
)
from dspy_live.core.events import Completion, Event, Predicted, Restart, Result, Started, Status, TextDelta, Token
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers.limit import Limit
from dspy_live.layers.retry import Retry, RetryStatistics
from dspy_live.layers.timeouts import Timeouts
from dspy_live.runtime.channel import read
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.testing.scripted import Recorder, ScriptedService, Wait, collect
from dspy_live.testing.virtual_time import run_virtual, virtual_time

DOWN = LMFailed("connection refused")


def now() -> float:
    return asyncio.get_running_loop().time()


def full(tries: int = 3, **kw) -> Retry:
    """With the longest waits that chance allows: 1, 2, 4, ... up to 10 s."""
    return Retry(tries, backoff=Backoff(base=1, cap=10), chance=lambda: 1.0, **kw)


@pytest.mark.parametrize("tries", [0, -1, 1.5, float("nan"), True])
def test_bad_numbers_of_tries_are_refused(tries: int) -> None:
    with pytest.raises(ConfigurationError, match="tries must be"):
        Retry(tries)


@virtual_time
async def test_a_failure_at_once_is_tried_again_after_growing_waits() -> None:
    script = ScriptedService(DOWN, DOWN, DOWN, DOWN, DOWN, [Completion({"n": 1})])
    layer = full(6, budget=None)
    assert await collect(layer(script), Call({})) == [Completion({"n": 1})]
    assert now() == 1 + 2 + 4 + 8 + 10
    assert layer.statistics().retries == 5


@virtual_time
async def test_jitter_takes_the_whole_of_the_wait() -> None:
    script = ScriptedService(DOWN, [Completion({})])
    await collect(Retry(backoff=Backoff(base=1), chance=lambda: 0.0)(script), Call({}))
    assert now() == 0


@virtual_time
async def test_retry_after_is_kept_and_jitter_comes_on_top() -> None:
    script = ScriptedService(RateLimited("slow down", retry_after=20), [Completion({})])
    await collect(full()(script), Call({}))
    assert now() == 21


@virtual_time
async def test_the_last_failure_comes_out() -> None:
    last = LMFailed("the third")
    script = ScriptedService(DOWN, [Wait(1), DOWN], last, [Completion({})])
    layer = full(3)
    with pytest.raises(LMFailed, match="the third") as info:
        await collect(layer(script), Call({}))
    assert info.value is last
    assert "the last of 3 tries" in info.value.__notes__
    assert layer.statistics().exhausted == 1


@pytest.mark.parametrize(
    "failure",
    [
        InputError("bad"),
        DeadlineExceeded("late"),
        BudgetExceeded("spent"),
        CircuitOpen("open"),
        ProgramFailed("bug"),
        LMFailed("bad key", status=401),
        RateLimited("our own limit", local=True),
        KeyError("x"),
    ],
)
@virtual_time
async def test_a_failure_that_another_try_would_not_mend_is_not_retried(failure: Exception) -> None:
    script = ScriptedService(failure, [Completion({})])
    with pytest.raises(type(failure)):
        await collect(full()(script), Call({}))
    assert len(script.attempts) == 1
    assert now() == 0


@pytest.mark.parametrize("code", ["rate_limit", "timeout", "server", "transport"])
@virtual_time
async def test_dspys_own_lm_errors_are_known_by_their_code(code: str) -> None:
    error = Exception("from the LM")
    error.code = code  # type: ignore[attr-defined]
    failed = ProgramFailed("the program")
    failed.__cause__ = error
    script = ScriptedService(error, failed, [Completion({})])
    await collect(full()(script), Call({}))
    assert len(script.attempts) == 3


@virtual_time
async def test_after_the_first_token_a_restart_comes_first() -> None:
    script = ScriptedService(
        [Started("r"), Status("s"), Token("ab", "answer", "p", 1), Token("cd", "why", "q", 2), DOWN],
        [Started("r"), Token("xy", "answer", "p", 1), Predicted({"answer": "xy"})],
    )
    events = await collect(full()(script), Call({}))
    assert events == [
        Started("r"),
        Status("s"),
        Token("ab", "answer", "p", 1),
        Token("cd", "why", "q", 2),
        Restart("p", 1, "LMFailed: another try"),
        Restart("q", 2, "LMFailed: another try"),
        Token("xy", "answer", "p", 1),
        Predicted({"answer": "xy"}),
    ]


@virtual_time
async def test_a_door_that_cannot_take_words_back_ends_the_call_before_another_try() -> None:
    script = ScriptedService([TextDelta("a"), DOWN], [Completion({})])
    with pytest.raises(StreamBroken, match="can't take words back: LMFailed"):
        await without_restarts(Retry(chance=lambda: 0.0)(script), Call({}))
    assert len(script.attempts) == 1


@virtual_time
async def test_an_lms_own_call_takes_back_its_words_once_and_passes_all_that_follow() -> None:
    """Its sink is out of the way after the first word: the next try must have one of its own."""
    said = [TextDelta("a"), TextDelta("b")]
    script = ScriptedService([*said, DOWN], DOWN, [*said, DOWN], [TextDelta("c"), Completion({})])
    sink = Recorder()
    await full(4)(script)(Call({}, origin=Origin(run="r", lm_call=3)), sink)
    taken_back = Restart("", 0, "LMFailed: another try")
    assert sink.events == [*said, taken_back, *said, taken_back, TextDelta("c")]


@virtual_time
async def test_one_restart_without_room_is_enough_to_wait() -> None:
    class Full(Recorder):
        def push(self, event: Event) -> bool:
            super().push(event)
            return not (isinstance(event, Restart) and event.lm_call == 1)

        async def room(self) -> None:
            await asyncio.sleep(60)

    script = ScriptedService([Token("a", "x", "p", 1), Token("b", "y", "q", 2), DOWN], [Completion({})])
    await Retry(chance=lambda: 0.0)(script)(Call({}), Full())
    assert now() == 60


@virtual_time
async def test_such_a_door_is_retried_before_the_first_token() -> None:
    script = ScriptedService([Started("r"), DOWN], [Started("r"), Predicted({})])
    assert await without_restarts(full()(script), Call({})) == [Started("r"), Predicted({})]


@virtual_time
async def test_a_caller_without_room_is_waited_for_before_the_next_try() -> None:
    script = ScriptedService([TextDelta("a"), DOWN], [TextDelta("b"), Completion({})])
    sink = Recorder(bound=2)
    task = asyncio.create_task(full()(script)(Call({}), sink))
    await asyncio.sleep(60)
    assert sink.events == [TextDelta("a"), Restart("", 0, "LMFailed: another try")]
    assert len(script.attempts) == 1
    sink.drain()
    assert await task == Completion({})


@virtual_time
async def test_the_work_has_ended_before_the_next_begins_and_before_the_wait() -> None:
    script = ScriptedService([TextDelta("a"), DOWN], [Completion({})], hold_exit=True)
    task = asyncio.create_task(collect(full()(script), Call({})))
    attempt = await script.attempt()
    await asyncio.sleep(100)
    assert attempt.state == "leaving"
    assert len(script.attempts) == 1
    attempt.may_end.set()
    began = now()
    second = await script.attempt(1)
    assert now() == began + 1
    second.may_end.set()
    await task
    assert script.most_active == 1


@virtual_time
async def test_a_limit_inside_has_its_slot_back_during_the_wait() -> None:
    script = ScriptedService(DOWN, [Completion({})])
    limit = Limit(1, queue=0)
    task = asyncio.create_task(collect(full()(limit(script)), Call({})))
    await script.attempt()
    await asyncio.sleep(0.5)
    assert limit.statistics().active == 0
    await collect(limit(ScriptedService([Completion({})])), Call({}))
    await task


@virtual_time
async def test_a_timeout_inside_is_tried_again() -> None:
    script = ScriptedService([Wait(100)], [TextDelta("a"), Wait(100)], [Completion({})])
    layer = full(budget=None)
    events = await collect(layer(Timeouts(first_token=3, idle=2)(script)), Call({}))
    assert events == [TextDelta("a"), Restart("", 0, "IdleTimeout: another try"), Completion({})]
    assert now() == 3 + 1 + 2 + 2


@virtual_time
async def test_it_does_not_wait_past_the_deadline() -> None:
    script = ScriptedService(RateLimited("slow", retry_after=60), [Completion({})])
    layer = full()
    with pytest.raises(RateLimited):
        await collect(layer(script), Call({}, deadline=30))
    assert now() == 0
    assert layer.statistics().too_late == 1


@virtual_time
async def test_while_everything_fails_only_the_savings_are_spent() -> None:
    script = ScriptedService(DOWN)
    layer = full(2, budget=(1.0, 0.001, 5))
    failures = []
    for _ in range(100):
        with pytest.raises(LMFailed) as info:
            await collect(layer(script), Call({}))
        failures.append(info.value)
    statistics = layer.statistics()
    assert (statistics.calls, statistics.retries, statistics.over_budget) == (100, 5, 95)
    assert statistics.budget_left == pytest.approx(0.005)
    assert len(script.attempts) == 105


@virtual_time
async def test_a_failure_says_that_the_budget_refused_another_try() -> None:
    layer = full(3, budget=(1.0, 0.001, 1))
    with pytest.raises(LMFailed) as info:
        await collect(layer(ScriptedService(LMFailed("the first"), LMFailed("the second"))), Call({}))
    assert any("try 2 of 3" in note and "retry budget" in note for note in info.value.__notes__)
    last = LMFailed("the only try")
    with pytest.raises(LMFailed):
        await collect(Retry(1)(ScriptedService(last)), Call({}))
    assert not hasattr(last, "__notes__"), "a budget that refused nothing is not blamed"


@pytest.mark.parametrize(
    ("faults", "order"),
    [
        *((faults, order) for faults in (0.1, 0.3, 0.5) for order in ("at once", "one after another")),
        (0.1, "faults first"),
        (0.3, "faults first"),
    ],
)
def test_the_default_budget_refuses_no_retry_while_half_of_the_requests_are_answered(faults: float, order: str) -> None:
    """A fifth of a retry per call gave up on 101 of 400 calls at 30 % of faults, where tries alone would lose 11."""
    chance = Random(f"{faults} {order}")

    async def service(call: Call, sink: Sink) -> Result:
        fails = chance.random() < faults
        await asyncio.sleep(0.01 if fails and order == "faults first" else 0.5)
        if fails:
            raise LMFailed("a fault")
        return Completion({})

    async def ask(layer: Retry) -> bool:
        try:
            await layer(service)(Call({}), DISCARD)
        except LMFailed:
            return False
        return True

    async def main() -> tuple[int, RetryStatistics]:
        layer = Retry(chance=chance.random)
        if order == "one after another":
            answered = [await ask(layer) for _ in range(400)]
        else:
            answered = await asyncio.gather(*(ask(layer) for _ in range(400)))
        return sum(answered), layer.statistics()

    answered, statistics = run_virtual(main())
    print(f"{faults:.0%} {order}: {answered} of 400, {statistics}")
    assert statistics.over_budget == 0
    assert statistics.exhausted == 400 - answered


@virtual_time
async def test_400_calls_at_once_that_all_fail_make_650_requests_and_not_1200() -> None:
    script = ScriptedService(DOWN)
    layer = Retry(chance=lambda: 0.0)
    await asyncio.gather(*(collect(layer(script), Call({})) for _ in range(400)), return_exceptions=True)
    assert len(script.attempts) == 650


@virtual_time
async def test_leaving_during_the_wait_ends_it() -> None:
    script = ScriptedService(RateLimited("slow", retry_after=60), [Completion({})])
    task = asyncio.create_task(collect(full()(script), Call({})))
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(script.attempts) == 1


@virtual_time
async def test_reading_one_by_one_sees_the_same() -> None:
    script = ScriptedService([TextDelta("a"), TextDelta("b"), DOWN], [TextDelta("c"), Completion({})])
    async with read(full()(script), Call({})) as reader:
        assert [type(event).__name__ async for event in reader] == ["TextDelta", "TextDelta", "Restart", "TextDelta"]
        assert reader.result == Completion({})


@virtual_time
async def test_a_cancelled_read_may_be_repeated() -> None:
    script = ScriptedService([Wait(2), TextDelta("a"), Completion({})])
    async with read(full()(script), Call({})) as reader:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.receive_many(), 1)
        assert [event async for event in reader] == [TextDelta("a")]
        assert reader.result == Completion({})
