"""Layers hand events on in the step in which they come, and hand the caller's want of room back to the source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Custom, Reasoning, TextDelta
from dspy_live.core.service import Layer
from dspy_live.layers import (
    Adaptive,
    Breaker,
    Budget,
    Cache,
    Deadline,
    Detached,
    Fallback,
    Limit,
    Rate,
    Retry,
    Shed,
    SingleFlight,
    Timeouts,
    meter,
)
from dspy_live.layers.single_flight import AHEAD
from dspy_live.runtime.books.account import Account
from dspy_live.testing import Recorder, ScriptedService, virtual_time

LAYERS: dict[str, Callable[[], Layer]] = {
    "adaptive": lambda: Adaptive(slow=10),
    "breaker": Breaker,
    "budget": lambda: Budget(max_calls=1),
    "cache": Cache,
    "deadline": lambda: Deadline(1000),
    "detached": Detached,
    "fallback": lambda: Fallback(ScriptedService()),
    "limit": lambda: Limit(1),
    "meter": lambda: meter(Account()),
    "rate_requests": lambda: Rate(requests_per_minute=60),
    "rate_tokens": lambda: Rate(tokens_per_minute=6000),
    "retry": Retry,
    "shed": lambda: Shed(1),
    "single_flight": SingleFlight,
    "timeouts": lambda: Timeouts(first_token=5, idle=5),
}
EVENTS = [Custom("x"), Reasoning("hm", "", 0), TextDelta("a"), TextDelta("b")]


@pytest.mark.parametrize("kind", LAYERS)
@virtual_time
async def test_events_arrive_in_the_step_in_which_they_are_pushed(kind: str) -> None:
    script, sink = ScriptedService(), Recorder()
    task = asyncio.create_task(LAYERS[kind]()(script)(Call({}), sink))
    attempt = await script.attempt()
    await asyncio.sleep(0)
    for count, event in enumerate(EVENTS, 1):
        attempt.send(event)
        assert sink.events == EVENTS[:count]
        assert not attempt.full
    attempt.end(Completion({}))
    assert await task == Completion({})


@pytest.mark.parametrize("kind", LAYERS)
@virtual_time
async def test_a_full_caller_pauses_the_source_for_as_long_as_it_takes(kind: str) -> None:
    ahead = AHEAD if kind == "single_flight" else 0
    events = [TextDelta(str(n)) for n in range(ahead + 3)]
    script, sink = ScriptedService([*events, Completion({})]), Recorder(bound=1)
    task = asyncio.create_task(LAYERS[kind]()(script)(Call({}), sink))
    attempt = await script.attempt()
    for taken in range(1, len(events) + 1):
        await asyncio.sleep(30)
        assert sink.events == events[:taken]
        assert len(attempt.sent) == min(taken + ahead, len(events))
        assert not task.done()
        sink.drain()
    assert await task == Completion({})
