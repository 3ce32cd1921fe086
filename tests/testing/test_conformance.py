"""The conformance suites pass for what is right, and fail for what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import Completion, Event, Predicted, Result, Started, Status, TextDelta, Token
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.core.store import StoreStats
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
from dspy_live.runtime.channel.channel import Channel
from dspy_live.runtime.stores.redis import RedisStore
from dspy_live.testing import (
    ChannelConformance,
    ScriptedService,
    ServiceConformance,
    StoreConformance,
    Wait,
    run_virtual,
)

TOKENS = [Token(text, "answer", "p", 1) for text in ("to", "ke", "ns")]


def program() -> Service:
    """A program's run as a script: every call begins with its own Started."""

    async def run(call: Call, sink: Sink) -> Result:
        script = [Started(call.id), Status("s"), *TOKENS, Wait(0.001), *TOKENS, Predicted({"answer": "tokens"})]
        return await ScriptedService(script)(call, sink)

    return run


def lm() -> ScriptedService:
    return ScriptedService([TextDelta("a"), Wait(0.001), TextDelta("b"), Completion({"text": "ab"})])


class TestScriptedProgram(ServiceConformance):
    def make_service(self) -> Service:
        return program()


class TestScriptedLM(ServiceConformance):
    def make_service(self) -> Service:
        return lm()


LAYERS: dict[str, Callable[[], Any]] = {
    "adaptive": lambda: Adaptive(2, 100, slow=10),
    "breaker": Breaker,
    "budget": lambda: Budget(max_calls=100),
    "cache": Cache,
    "deadline": lambda: Deadline(30),
    "detached": lambda: Detached(5),
    "fallback": lambda: Fallback(lm()),
    "limit": lambda: Limit(2),
    "meter": meter,
    "rate_requests": lambda: Rate(requests_per_minute=6000),
    "rate_tokens": lambda: Rate(tokens_per_minute=6_000_000),
    "retry": Retry,
    "shed": lambda: Shed(100, lag=10),
    "single_flight": lambda: SingleFlight(lambda call: call.id),
    "single_flight_shared": lambda: SingleFlight(lambda call: "one"),
    "timeouts": lambda: Timeouts(first_token=10, idle=10),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> Any:
    return LAYERS[request.param]


class AroundEachLayer(ServiceConformance):
    inner: Callable[[], Service]
    layer: Callable[[], Any]

    @pytest.fixture(autouse=True)
    def _take_layer(self, layer: Callable[[], Any]) -> None:
        self.layer = layer

    def make_service(self) -> Service:
        return self.layer()(type(self).inner())  # type: ignore[no-any-return]


class TestLayersAroundAProgram(AroundEachLayer):
    inner = program


class TestLayersAroundAnLM(AroundEachLayer):
    inner = lm


class TestOurChannel(ChannelConformance):
    def make_channel(self, buffer: Buffer, over: Callable[[], bool]) -> Channel:
        return Channel(buffer, over)


class MemoryStore:
    """The least that is a store."""

    name = "memory"

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, bytes]] = {}

    async def get(self, key: str) -> Any | None:
        return msgspec.json.decode(self._held[key][1]) if key in self._held else None

    async def put(self, key: str, value: Any) -> None:
        try:
            content = msgspec.json.encode(value)
        except TypeError:
            return
        self._held.pop(key, None)
        self._held[key] = asyncio.get_running_loop().time(), content

    def stats(self) -> StoreStats:
        return StoreStats(len(self._held), sum(len(content) for _, content in self._held.values()))

    def clear(self) -> int:
        count = len(self._held)
        self._held.clear()
        return count

    def prune(self, *, max_bytes: int | None = None, older_than: float | None = None) -> int:
        doomed = 0
        now = asyncio.get_running_loop().time()
        while self._held:
            key, (when, _) = next(iter(self._held.items()))
            too_old = older_than is not None and when < now - older_than
            if not too_old and (max_bytes is None or self.stats().bytes <= max_bytes):
                break
            del self._held[key]
            doomed += 1
        return doomed


class TestMemoryStore(StoreConformance):
    def make_store(self) -> MemoryStore:
        return MemoryStore()


class TestRedisStore(StoreConformance):
    url: str

    @pytest.fixture(autouse=True)
    def _take_url(self, redis_url: str) -> None:
        self.url = redis_url

    def make_store(self) -> RedisStore:
        return RedisStore(self.url, timeout=30)

    async def close_store(self, store: Any) -> None:
        await store.aclose()


# Each suite must fail for an implementation that is wrong in the way that the test is about.


class Wrong:
    """A service that is right but for one thing."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.leaks: list[asyncio.Task[None]] = []

    async def __call__(self, call: Call, sink: Sink) -> Any:
        result = Predicted({})
        if self.fault == "leaks":
            self.leaks.append(asyncio.create_task(asyncio.sleep(60)))
        started: list[Any] = [] if self.fault == "no start" else [Started(call.id)]
        if self.fault == "mixes":
            started = [Started("somebody else's")]
        pushed = [result] if self.fault == "pushes its result" else []
        try:
            for event in (*started, *TOKENS, *pushed):
                if not sink.push(event):
                    await sink.room()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self.fault == "swallows cancel":
                return result
            if self.fault == "takes a cancellation back":
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                raise TimeoutError from None
            raise
        return None if self.fault == "no result" else result


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("no start", "test_a_call_returns_a_result_and_its_events_are_in_order"),
        ("no result", "test_a_call_returns_a_result_and_its_events_are_in_order"),
        ("no result", "test_the_result_does_not_depend_on_the_sink"),
        ("pushes its result", "test_a_call_returns_a_result_and_its_events_are_in_order"),
        ("leaks", "test_a_call_returns_a_result_and_its_events_are_in_order"),
        ("leaks", "test_reading_it_and_leaving_early_ends_everything"),
        ("leaks", "test_an_outer_timeout_is_the_outer_one_s"),
        ("swallows cancel", "test_cancelling_at_any_step_ends_everything_and_stays_a_cancellation"),
        ("takes a cancellation back", "test_cancelling_at_any_step_ends_everything_and_stays_a_cancellation"),
        ("mixes", "test_calls_at_once_do_not_mix"),
    ],
)
def test_a_wrong_service_is_found_out(fault: str, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspy_live.testing.conformance_service.SETTLE", 0.01)

    class Suite(ServiceConformance):
        def make_service(self) -> Any:
            return Wrong(fault)

    with pytest.raises((AssertionError, LifecycleError)):
        getattr(Suite(), test)()


def test_a_right_service_of_the_same_kind_passes() -> None:
    class Suite(ServiceConformance):
        def make_service(self) -> Any:
            return Wrong("nothing")

    for name in dir(Suite):
        if name.startswith("test_"):
            getattr(Suite(), name)()


class ForgetfulStore(MemoryStore):
    async def get(self, key: str) -> Any | None:
        return None if key == "k2" else await super().get(key)

    def prune(self, *, max_bytes: int | None = None, older_than: float | None = None) -> int:
        return 0


@pytest.mark.parametrize("test", ["test_many_at_once", "test_it_prunes_by_age"])
def test_a_wrong_store_is_found_out(test: str) -> None:
    class Suite(StoreConformance):
        def make_store(self) -> ForgetfulStore:
            return ForgetfulStore()

    with pytest.raises(AssertionError):
        getattr(Suite(), test)()


class LossyChannel(Channel):
    def push(self, event: Event) -> bool:
        return super().push(event) if not self.full else False


def test_a_wrong_channel_is_found_out() -> None:
    class Suite(ChannelConformance):
        def make_channel(self, buffer: Buffer, over: Callable[[], bool]) -> Channel:
            return LossyChannel(buffer, over)

    with pytest.raises(AssertionError):
        Suite().test_nothing_is_lost_when_the_source_does_not_pause()


class HoldsUp(Channel):
    def close(self) -> None:
        """The reader has left, and the sources hear nothing of it."""


def test_a_channel_that_holds_up_sources_of_a_reader_that_left_is_found_out() -> None:
    class Suite(ChannelConformance):
        def make_channel(self, buffer: Buffer, over: Callable[[], bool]) -> Channel:
            return HoldsUp(buffer, over)

        def run(self, main: Coroutine[Any, Any, None]) -> None:
            run_virtual(main)

    with pytest.raises(TimeoutError):
        Suite().test_a_reader_that_has_left_holds_nobody_up()
