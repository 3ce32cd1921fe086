"""Layers that look at events keep an LM's short way open: words go from the socket's callback to the parser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import FirstTokenTimeout, IdleTimeout, LMFailed, StreamBroken
from dspy_live.core.events import Completion, Reasoning, TextDelta
from dspy_live.core.sink import alive
from dspy_live.layers import Adaptive, Breaker, Deadline, Fallback, Limit, Rate, Retry, Shed, Timeouts
from dspy_live.testing import ScriptedService, virtual_time

TOOL = object()
REPLY = {"text": "ab", "usage": {"total_tokens": 7}}


class LM:
    """An LM service with the short way: each opening plays the next script of words, waits (seconds) and failures."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = scripts
        self.opened = 0

    @asynccontextmanager
    async def open(self, call: Call) -> Any:
        script = self.scripts[min(self.opened, len(self.scripts) - 1)]
        self.opened += 1
        yield Attached(script)


class Attached:
    def __init__(self, script: list[Any]) -> None:
        self.script = script

    async def receive_many(self) -> list[Any]:
        raise AssertionError("the events must not be read where there is a short way")

    async def attach(self, sink: Any) -> Any:
        for step in self.script:
            if isinstance(step, str):
                if not sink.text(step):
                    room = asyncio.get_running_loop().create_future()
                    sink.on_room(lambda room=room: room.set_result(None))
                    await room
            elif isinstance(step, BaseException):
                raise step
            elif step is TOOL:
                alive(sink)
            else:
                await asyncio.sleep(step)
        return REPLY


class Sink:
    def __init__(self, full_for: float | None = None) -> None:
        self.said: list[str] = []
        self.full_for = full_for

    def text(self, text: str) -> bool:
        self.said.append(text)
        return self.full_for is None

    reasoning = text

    def on_room(self, callback: Callable[[], object]) -> None:
        assert self.full_for is not None
        asyncio.get_running_loop().call_later(self.full_for, callback)

    def restart(self, reason: str) -> None:
        self.said.append(f"<{reason}>")


async def ask(service: Any, sink: Sink, call: Call | None = None) -> Any:
    async with service.open(call or Call({})) as events:
        return await events.attach(sink)


@pytest.mark.parametrize(
    "layer",
    [
        Adaptive(),
        Breaker(),
        Deadline(10),
        Fallback(LM(["x"])),
        Limit(1),
        Rate(requests_per_minute=60),
        Rate(tokens_per_minute=6000),
        Retry(),
        Shed(1),
        Timeouts(first_token=5, idle=5),
    ],
    ids=lambda layer: layer.kind,
)
@virtual_time
async def test_the_words_go_straight_through(layer: Any) -> None:
    sink = Sink()
    assert await ask(layer(LM(["a", 1, "b"])), sink) is REPLY
    assert sink.said == ["a", "b"]


@virtual_time
async def test_a_service_without_it_offers_none() -> None:
    async with Retry()(ScriptedService([Completion({})])).open(Call({})) as events:
        assert getattr(events, "attach", None) is None


@virtual_time
async def test_a_retry_tells_the_sink_that_the_words_are_void() -> None:
    lm = LM(["a", LMFailed("cut")], [LMFailed("again")], ["b"])
    sink = Sink()
    assert await ask(Retry(chance=lambda: 0.0)(lm), sink) is REPLY
    assert sink.said == ["a", "<LMFailed: another try>", "b"]
    assert lm.opened == 3


@virtual_time
async def test_a_door_that_cannot_restart_gets_a_clear_error() -> None:
    with pytest.raises(StreamBroken):
        await ask(Retry()(LM(["a", LMFailed("cut")])), Sink(), Call({}, restartable=False))
    sink = Sink()
    await ask(Retry(chance=lambda: 0.0)(LM([LMFailed("before")], ["b"])), sink, Call({}, restartable=False))
    assert sink.said == ["b"]


@virtual_time
async def test_a_fallback_may_be_a_service_without_a_short_way() -> None:
    other = ScriptedService([TextDelta("x"), Reasoning("y", "", 0), Completion({"n": 1})])
    sink = Sink(full_for=3)
    assert await ask(Fallback(other)(LM(["a", LMFailed("down")])), sink) == {"n": 1}
    assert sink.said == ["a", "<LMFailed: another try>", "x", "y"]


@virtual_time
async def test_timeouts_hold_on_the_short_way() -> None:
    now = asyncio.get_running_loop().time
    layer = Timeouts(first_token=2, idle=1)
    with pytest.raises(FirstTokenTimeout):
        await ask(layer(LM([5, "a"])), Sink())
    assert now() == 2
    sink = Sink()
    with pytest.raises(IdleTimeout):
        await ask(layer(LM([1, "a", 0.9, "b", 0.9, "c", 5, "d"])), sink)
    assert sink.said == ["a", "b", "c"]
    assert now() == pytest.approx(2 + 1 + 1.8 + 1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time
async def test_the_readers_slowness_is_not_the_lms_silence() -> None:
    sink = Sink(full_for=30)
    await ask(Timeouts(first_token=2, idle=1)(LM(["a", "b", 0.5, "c"])), sink)
    assert sink.said == ["a", "b", "c"]


@virtual_time
async def test_a_breaker_and_a_rate_limit_learn_from_it() -> None:
    breaker, rate = Breaker(minimum=2), Rate(tokens_per_minute=600, estimate=lambda call: 100)
    for _ in range(2):
        with pytest.raises(LMFailed):
            await ask(breaker(LM(["a", LMFailed("cut")])), Sink())
    assert breaker.state == "open"
    await ask(rate(LM(["a"])), Sink())
    assert rate.statistics().tokens_left == 593


@virtual_time
async def test_a_long_tool_call_is_no_silence() -> None:
    """An agent's LM that only calls a tool says no word: it was stopped as if it had not begun."""
    layer = Timeouts(first_token=2, idle=2)
    assert await ask(layer(LM([1.0, TOOL, 1.0, TOOL, 1.0, TOOL, 1.0])), Sink()) == REPLY
    with pytest.raises(IdleTimeout):
        await ask(layer(LM([1.0, TOOL, 2.5])), Sink())
    with pytest.raises(FirstTokenTimeout):
        await ask(layer(LM([2.5, TOOL])), Sink())
