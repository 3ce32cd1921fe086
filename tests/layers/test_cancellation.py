"""Each layer, ended from outside at every step of the loop: it ends for real, it leaks nothing, it swallows nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dspy_live.core.call import Call
from dspy_live.core.errors import DeadlineExceeded, LMFailed
from dspy_live.core.events import Completion, Event, Restart, Result, TextDelta, Usage
from dspy_live.core.service import Layer, Service, compose
from dspy_live.core.sink import Sink
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
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.channel import read
from dspy_live.runtime.scope import Room, ended
from dspy_live.testing import Ending, explore_cancellation
from dspy_live.testing.cancellation import WAYS

WORDS = [f"w{n} " for n in range(4)]
TEXT = "".join(WORDS)


class Work:
    """An LM: says its words with a pause between them, and takes its time to end. The first calls may fail midway."""

    def __init__(self, *fail_after: int, pause: float = 0.0) -> None:
        self.fail_after = list(fail_after)
        self.pause = pause
        self.active = 0
        self.most = 0

    async def __call__(self, call: Call, sink: Sink) -> Result:
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            fail_after = self.fail_after.pop(0) if self.fail_after else None
            for number, word in enumerate(WORDS):
                await asyncio.sleep(self.pause)
                if number == fail_after:
                    raise LMFailed("cut")
                if not sink.push(TextDelta(word)):
                    await sink.room()
            sink.push(Usage("m", "", 0, total_tokens=7))
            return Completion(TEXT)
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                self.active -= 1


class Tape:
    """A door's sink: full after ``bound`` events until the loop has gone round twice; refuses events after the end."""

    def __init__(self, bound: int | None = None) -> None:
        self.events: list[Event] = []
        self.over = False
        self._bound = bound
        self._left = bound
        self._room = Room()
        self._loop = asyncio.get_running_loop()

    def push(self, event: Event) -> bool:
        assert not self.over, f"pushed after the end of the call: {event}"
        self.events.append(event)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0 and self._room.open:
                self._room.set(False)
                self._loop.call_soon(self._loop.call_soon, self._drain)
        return self._room.open

    async def room(self) -> None:
        await self._room.wait()

    def _drain(self) -> None:
        self._left = self._bound
        self._room.set(True)

    @property
    def text(self) -> str:
        said: list[str] = []
        for event in self.events:
            if isinstance(event, Restart):
                said.clear()
            elif isinstance(event, TextDelta):
                said.append(event.text)
        return "".join(said)


LAYERS: dict[str, Callable[[], Sequence[Layer]]] = {
    "adaptive": lambda: [Adaptive(1, 2, slow=10)],
    "breaker": lambda: [Breaker()],
    "budget": lambda: [Budget(max_calls=100)],
    "cache": lambda: [Cache()],
    "deadline": lambda: [Deadline(1000)],
    "fallback": lambda: [Fallback(Work())],
    "limit": lambda: [Limit(1)],
    "meter": lambda: [meter(Account())],
    "rate": lambda: [Rate(tokens_per_minute=6000)],
    "retry": lambda: [Retry(3, chance=lambda: 0.5)],
    "shed": lambda: [Shed(1, lag=100)],
    "single_flight": lambda: [SingleFlight()],
    "timeouts": lambda: [Timeouts(first_token=1000, idle=1000)],
    "detached": lambda: [Detached(1000)],
    "all": lambda: [
        Shed(10),
        Deadline(1000),
        Detached(1000),
        SingleFlight(),
        Cache(),
        Budget(max_calls=100),
        Fallback(Work()),
        Retry(3, chance=lambda: 0.5),
        Breaker(),
        Rate(requests_per_minute=6000, tokens_per_minute=1e6),
        Limit(1),
        Timeouts(first_token=1000, idle=1000),
    ],
}


def ways(kind: str) -> Sequence[str]:
    """``Detached`` leaves its work behind when it is cancelled a second time; that has a test of its own."""
    return [way for way in WAYS if way != "cancel twice"] if kind in ("detached", "all") else WAYS


def check_layers(layers: Sequence[Layer]) -> None:
    for layer in layers:
        statistics: Any = getattr(layer, "statistics", dict)()
        for name in ("active", "waiting", "leaving"):
            assert not getattr(getattr(statistics, "slots", statistics), name, 0), f"{layer}: {statistics}"
        if isinstance(layer, SingleFlight):
            assert not layer._flights
        if isinstance(layer, Shed):
            assert layer._timer is None


@pytest.mark.parametrize("bound", [None, 1, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_that_is_ended_from_outside_ends_its_work_first(kind: str, bound: int | None) -> None:
    def scenario() -> Any:
        work, tape, layers = Work(pause=0.5), Tape(bound), LAYERS[kind]()
        service = compose(work, layers)

        def check(ending: Ending) -> None:
            tape.over = True
            assert work.active == 0, "the await is the lifetime"
            check_layers(layers)
            assert TEXT.startswith(tape.text)
            if ending.complete:
                assert ending.result == Completion(TEXT)
                assert tape.text == TEXT
            else:
                assert ending.result is not None or isinstance(ending.error, asyncio.CancelledError | TimeoutError)

        return service(Call({}), tape), check

    assert explore_cancellation(scenario, ways=ways(kind)) > 10


@pytest.mark.parametrize("bound", [None, 1])
@pytest.mark.parametrize("fail_after", [(0,), (2,), (3, 0)])
@pytest.mark.parametrize("kind", ["retry", "fallback", "all"])
def test_several_tries_that_are_ended_from_outside(kind: str, fail_after: tuple[int, ...], bound: int | None) -> None:
    def scenario() -> Any:
        failures = fail_after if kind != "fallback" else fail_after[:1]
        work, tape, layers = Work(*failures, pause=0.5), Tape(bound), LAYERS[kind]()
        service = compose(work, layers)

        def check(ending: Ending) -> None:
            tape.over = True
            assert work.active == 0
            assert work.most == 1, "a try has ended before the next begins"
            check_layers(layers)
            assert TEXT.startswith(tape.text)
            assert not ending.complete or (tape.text, ending.result) == (TEXT, Completion(TEXT))

        return service(Call({}), tape), check

    assert explore_cancellation(scenario, ways=ways(kind)) > 10


@pytest.mark.parametrize("layer", [Deadline(3), Timeouts(idle=0.5), Timeouts(first_token=0.5)], ids=repr)
def test_a_time_limit_and_an_end_from_outside_at_once(layer: Layer) -> None:
    """Each is reported for itself: a time limit's own error, or the cancellation that somebody else has sent."""

    def scenario() -> Any:
        work, tape = Work(pause=1), Tape()

        def check(ending: Ending) -> None:
            tape.over = True
            assert work.active == 0
            ours = isinstance(ending.error, DeadlineExceeded)
            assert ours or isinstance(ending.error, asyncio.CancelledError | TimeoutError)
            assert ours or not ending.complete

        return layer(work)(Call({}), tape), check

    assert explore_cancellation(scenario) > 10


def test_a_call_in_the_queue_of_a_limit() -> None:
    def scenario() -> Any:
        work, tape, limit = Work(), Tape(), Limit(1)
        service = limit(work)

        async def second() -> Result:
            first = asyncio.create_task(service(Call({}), Tape()))
            try:
                await asyncio.sleep(0)
                return await service(Call({}), tape)
            finally:
                await ended(first)

        def check(ending: Ending) -> None:
            assert work.active == limit.statistics().active == limit.statistics().waiting == 0
            assert work.most == 1
            assert not ending.complete or tape.text == TEXT

        return second(), check

    assert explore_cancellation(scenario) > 10


def test_a_follower_of_a_flight_does_not_notice_that_the_first_caller_is_ended() -> None:
    def scenario() -> Any:
        work, first, other, flights = Work(2), Tape(1), Tape(2), SingleFlight()
        service = compose(work, [flights, Retry(2, chance=lambda: 0.0)])
        followers: list[asyncio.Task[Result]] = []

        async def both() -> Result:
            followers.append(asyncio.create_task(service(Call({}), other)))
            try:
                return await service(Call({}), first)
            finally:
                first.over = True
                await ended(*followers)

        def check(ending: Ending) -> None:
            assert TEXT.startswith(first.text)
            assert work.active == flights.statistics().active == 0
            for follower in followers:
                assert (follower.result(), other.text) == (Completion(TEXT), TEXT)

        return both(), check

    assert explore_cancellation(scenario) > 10


def test_a_caller_that_leaves_a_blocked_thread_behind_is_not_held_up_and_hears_nothing_more() -> None:
    """What is inside of ``Detached`` still holds its slot until the work has ended."""

    def scenario() -> Any:
        tape, limit, detached = Tape(), Limit(1), Detached(0.5)
        loop = asyncio.get_running_loop()

        async def blocked(call: Call, sink: Sink) -> Result:
            async def thread() -> None:
                for word in WORDS:
                    await asyncio.sleep(2)
                    sink.push(TextDelta(word))

            work = asyncio.ensure_future(thread())
            await ended(work)
            return Completion(TEXT)

        def check(ending: Ending) -> None:
            tape.over = True
            assert ending.complete or loop.time() - began <= 8.5
            leaving = detached.statistics().leaving
            assert leaving == limit.statistics().active
            loop.call_later(20, check_layers, [limit, detached])

        began = loop.time()
        return compose(blocked, [detached, limit])(Call({}), tape), check

    assert explore_cancellation(scenario) > 10


@pytest.mark.parametrize("bound", [1, 64])
def test_a_reader_that_is_ended_ends_the_run(bound: int) -> None:
    def scenario() -> Any:
        work, limit = Work(3), Limit(1)
        service: Service = compose(work, [limit, Retry(2, chance=lambda: 0.0)])
        tape = Tape()

        async def reads() -> Result:
            async with read(service, Call({})) as reader:
                async for event in reader:
                    tape.push(event)
                return reader.result

        def check(ending: Ending) -> None:
            tape.over = True
            assert work.active == limit.statistics().active == 0
            assert TEXT.startswith(tape.text)
            assert not ending.complete or tape.text == TEXT

        return reads(), check

    assert explore_cancellation(scenario) > 10
