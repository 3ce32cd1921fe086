"""The conformance suites pass for what is right, and fail for what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import Completion, Event, Predicted, Started, Status, TextDelta, Token
from dspy_live.core.service import Service
from dspy_live.core.store import StoreStats
from dspy_live.layers import (
    Adaptive,
    Breaker,
    Budget,
    Deadline,
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
from dspy_live.testing import ChannelConformance, ScriptedService, ServiceConformance, StoreConformance, Wait

TOKENS = [Token(text, "answer", "p", 1) for text in ("to", "ke", "ns")]


class Program(ScriptedService):
    """A program's run as a script: every opening starts with its own Started."""

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Any]:
        script = [Started(call.id), Status("s"), *TOKENS, Wait(0.001), *TOKENS, Predicted({"answer": "tokens"})]
        async with ScriptedService(script).open(call) as receiver:
            yield receiver


def lm() -> ScriptedService:
    return ScriptedService([TextDelta("a"), Wait(0.001), TextDelta("b"), Completion({"text": "ab"})])


class TestScriptedProgram(ServiceConformance):
    def make_service(self) -> Service:
        return Program()


class TestScriptedLM(ServiceConformance):
    def make_service(self) -> Service:
        return lm()


LAYERS: dict[str, Callable[[], Any]] = {
    "adaptive": lambda: Adaptive(2, 100, slow=10),
    "breaker": Breaker,
    "budget": lambda: Budget(max_calls=100),
    "deadline": lambda: Deadline(30),
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
    inner = Program


class TestLayersAroundAnLM(AroundEachLayer):
    inner = lm


class TestOurChannel(ChannelConformance):
    def make_channel(self, buffer: Buffer) -> Channel:
        return Channel(buffer)


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
        return RedisStore(self.url)

    async def close_store(self, store: Any) -> None:
        await store.aclose()


# Each suite must fail for an implementation that is wrong in the way that the test is about.


class Wrong:
    """A service that is right but for one thing."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Any]:
        run = "somebody else's" if self.fault == "mixes" else call.id
        end: list[Event] = [] if self.fault == "no result" else [Predicted({})]
        if self.fault == "two results":
            end *= 2
        started: list[Event] = [] if self.fault == "no start" else [Started(run)]
        channel = Channel()
        for event in (*started, *TOKENS, *end):
            channel.push(event)
        channel.close()
        leak = asyncio.create_task(asyncio.sleep(60)) if self.fault == "leaks" else None
        receiver: Any = channel.receiver
        if self.fault == "loses on cancel":
            receiver = Losing(receiver)
        try:
            yield receiver
        except BaseException as exc:
            if self.fault == "swallows" or (
                self.fault == "swallows cancel" and isinstance(exc, asyncio.CancelledError)
            ):
                return
            raise
        finally:
            del leak


class Losing:
    """Takes first and waits then: what it has taken is lost when it is cancelled."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def receive_many(self) -> list[Event]:
        taken: list[Event] = await self._inner.receive_many()
        await asyncio.sleep(0)
        return taken


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("no start", "test_a_call_ends_with_one_result_and_its_events_are_in_order"),
        ("no result", "test_a_call_ends_with_one_result_and_its_events_are_in_order"),
        ("two results", "test_one_by_one_and_many_at_once_tell_the_same_story"),
        ("loses on cancel", "test_a_cancelled_receive_takes_nothing"),
        ("loses on cancel", "test_the_receiver_keeps_the_protocol"),
        ("leaks", "test_leaving_early_ends_everything"),
        ("leaks", "test_leaving_without_reading_ends_everything"),
        ("swallows", "test_an_error_in_the_readers_code_goes_through"),
        ("swallows cancel", "test_cancelling_the_reader_ends_everything_and_stays_a_cancellation"),
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
        def make_channel(self, buffer: Buffer) -> Channel:
            return LossyChannel(buffer)

    with pytest.raises(AssertionError):
        Suite().test_nothing_is_lost_when_the_sender_does_not_stop()
