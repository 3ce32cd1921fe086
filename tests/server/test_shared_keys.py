"""A key's limits over several servers: requests and tokens per minute, runs at once, exact through a real store."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from redis import Redis
from tests.server.support import http, qa, serving
from tests.support.databases import Server
from tests.support.processes import Processes
from tests.support.until import async_until

from dspy_live.core.call import Call
from dspy_live.core.errors import LiveError, Overloaded, RateLimited
from dspy_live.core.events import Predicted, Result
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.layers import _leases
from dspy_live.runtime.stores import line
from dspy_live.server import create_app
from dspy_live.server.keys import minute
from dspy_live.server.keys.key import Key
from dspy_live.server.keys.shared_limits import SharedKeyLimits, SharedPlace
from dspy_live.server.keys.token import digest_of
from dspy_live.server.transport.auth import Keys

Run = Callable[[], Awaitable[object]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits of the protocol are short; but a process may stand still."""
    for name, seconds in {"BEAT": 0.05, "LEASE": 60.0, "SETTLE": 0.2, "REST": 0.05, "TELL": 0.01}.items():
        monkeypatch.setattr(line, name, seconds)


def ada(**limits: Any) -> Key:
    return Key(name="ada", digest=digest_of("ada-key"), **limits)


def server(url: str, *, on_outage: Any = "alone", timeout: float = 20.0, **limits: Any) -> Keys:
    """The keys of a server, with a line of its own, as if it were in another process."""
    line._lines.clear()
    place = SharedPlace(url, on_outage=on_outage, timeout=timeout)
    return Keys([ada(**limits)], shared=partial(SharedKeyLimits, place))


class Program:
    """A program whose runs end when the test says so; each has one LM call of so many tokens before."""

    def __init__(self, tokens: int = 0, *, ends: bool = True) -> None:
        self.tokens, self.active = tokens, 0
        self.end = asyncio.Event()
        if ends:
            self.end.set()

    async def __call__(self, call: Call, sink: Sink) -> Result:
        self.active += 1
        try:
            for meter in call.meters:
                meter.record(LMRecord(model="m", usage=LMUsage(self.tokens, 0, self.tokens)))
            await self.end.wait()
        finally:
            self.active -= 1
        return Predicted({})


async def run(keys: Keys, program: Program) -> Result:
    return await keys(program)(Call({}, key="ada", program="qa"), DISCARD)


async def let_in(keys: Keys, program: Program, count: int) -> int:
    """Send so many at once, and return how many are not refused."""
    results = await asyncio.gather(*(run(keys, program) for _ in range(count)), return_exceptions=True)
    for result in results:
        assert isinstance(result, (Predicted, RateLimited)), result
    return sum(isinstance(result, Predicted) for result in results)


async def test_requests_are_counted_over_all_servers_and_a_refused_one_is_told_when_to_come_back(
    redis_url: str,
) -> None:
    one, two = server(redis_url, requests_per_minute=5), server(redis_url, requests_per_minute=5)
    assert await let_in(one, Program(), 4) == 4
    assert await let_in(two, Program(), 4) == 1
    with pytest.raises(RateLimited, match="the key 'ada' may have 5 requests per minute") as refused:
        await run(one, Program())
    assert 50 < (refused.value.retry_after or 0) <= 60
    assert dict(one.headers("ada"))[b"x-ratelimit-remaining"] == b"0"
    assert dict(one.headers("ada"))[b"x-ratelimit-limit"] == b"5"


async def test_less_than_one_run_a_minute_is_one_in_so_many(redis_url: str) -> None:
    one, two = server(redis_url, requests_per_minute=0.5), server(redis_url, requests_per_minute=0.5)
    await run(one, Program())
    with pytest.raises(RateLimited) as refused:
        await run(two, Program())
    assert 110 < (refused.value.retry_after or 0) <= 120


async def test_tokens_are_counted_when_they_are_known_and_not_twice(redis_url: str) -> None:
    one, two = server(redis_url, tokens_per_minute=100), server(redis_url, tokens_per_minute=100)
    await run(one, Program(tokens=60))
    await run(one, Program(tokens=39))

    await run(two, Program(tokens=1))

    def used() -> float | None:
        window = two._admissions["ada"].shared.tokens  # type: ignore[union-attr]
        assert window is not None
        two._admissions["ada"].shared.tokens._line.soon(window)  # type: ignore[union-attr]
        return window.used[1] if window.used is not None else None

    await async_until(lambda: used() == 100.0)
    for keys in (one, two):
        with pytest.raises(RateLimited, match="tokens per minute"):
            await run(keys, Program())
    await async_until(lambda: used() == 100.0)


async def test_runs_at_once_are_counted_over_all_servers_and_a_place_is_free_at_once(redis_url: str) -> None:
    one, two = server(redis_url, concurrency=2), server(redis_url, concurrency=2)
    program = Program(ends=False)
    first, second = asyncio.create_task(run(one, program)), asyncio.create_task(run(two, program))
    await async_until(lambda: program.active == 2)
    for keys in (one, two):
        with pytest.raises(RateLimited, match="may have 2 runs at once"):
            await run(keys, program)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await async_until(lambda: one._admissions["ada"].shared.slots.held == 0)  # type: ignore[union-attr]
    third: list[asyncio.Task[Result]] = []

    async def takes_the_place() -> bool:
        third.append(asyncio.create_task(run(two, program)))
        await async_until(lambda: third[-1].done() or program.active == 2)
        return program.active == 2

    while not await takes_the_place():  # the place that was given back is on its way to the store
        assert isinstance(third[-1].exception(), RateLimited)
    program.end.set()
    await asyncio.gather(second, third[-1])


async def test_one_that_was_refused_keeps_no_place_before_others(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_leases, "_KEEPS_PLACE", 1000.0)
    one, two, three = (server(redis_url, concurrency=1) for _ in range(3))
    slots = [keys._admissions["ada"].shared.slots for keys in (one, two, three)]  # type: ignore[union-attr]
    first, second, third = (slot for slot in slots if slot is not None)
    assert await first.acquire_now() == "granted"
    assert await second.acquire_now() == "full"
    first.release()
    await async_until(lambda: first.held == 0)
    while await third.acquire_now() == "full":  # until the store has heard of the release
        assert not first.held
    third.release()


async def test_new_limits_count_what_runs_already(redis_url: str) -> None:
    one, two = server(redis_url, concurrency=2), server(redis_url, concurrency=2)
    program = Program(ends=False)
    running = [asyncio.create_task(run(one, program)) for _ in range(2)]
    await async_until(lambda: program.active == 2)
    for keys in (one, two):
        keys.replace([ada(concurrency=3)])
    running.append(asyncio.create_task(run(two, program)))
    await async_until(lambda: program.active == 3)
    for keys in (one, two):
        with pytest.raises(RateLimited, match="3 runs at once"):
            await run(keys, program)
    program.end.set()
    await asyncio.gather(*running)


@pytest.mark.parametrize("limits", [{"requests_per_minute": 3}, {"tokens_per_minute": 1000}, {"concurrency": 3}])
async def test_while_the_store_is_frozen_each_counts_alone_or_refuses(
    limits: dict[str, Any], redis_server: Server
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    alone, strict = (server(url, on_outage=way, timeout=0.3, **limits) for way in ("alone", "refuse"))
    await run(alone, Program())
    await passes_again(strict)
    assert redis_server.process is not None
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        program = Program(ends=False)
        running = [asyncio.create_task(run(alone, program)) for _ in range(5)]
        expected = {"requests_per_minute": 2, "tokens_per_minute": 5, "concurrency": 3}[next(iter(limits))]
        await async_until(lambda: program.active == expected and sum(t.done() for t in running) == 5 - expected)
        program.end.set()
        await asyncio.gather(*running, return_exceptions=True)
        with pytest.raises(LiveError, match="does not answer") as refused:
            await run(strict, Program())
        assert isinstance(refused.value, Overloaded)
        assert (refused.value.status, refused.value.retry_after) == (503, 1.0)
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    await passes_again(strict)


async def passes_again(keys: Keys) -> None:
    """Ask until the store is found to answer, which a refused run has it asked about: by what others have used."""
    end = time.monotonic() + 30
    while True:
        (answer,) = await asyncio.gather(run(keys, Program()), return_exceptions=True)
        if isinstance(answer, (Predicted, RateLimited)):
            return
        assert "does not answer" in str(answer)
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_a_full_store_is_as_one_that_does_not_answer(redis_url: str) -> None:
    alone, strict = server(redis_url, concurrency=9), server(redis_url, on_outage="refuse", concurrency=9)
    for keys in (alone, strict):
        await run(keys, Program())
    with Redis.from_url(redis_url) as admin:
        admin.config_set("maxmemory", 1)
        await run(alone, Program())
        with pytest.raises(Overloaded, match="does not answer"):
            await run(strict, Program())
        admin.config_set("maxmemory", 0)
    await passes_again(strict)


def test_over_a_socket_both_servers_tell_and_hold_the_limit(redis_url: str) -> None:
    with (
        serving(create_app(qa(), api_keys=server(redis_url, requests_per_minute=3))) as one,
        serving(create_app(qa(), api_keys=server(redis_url, requests_per_minute=3))) as two,
    ):
        replies = [
            http.post(live.url + "/predict", json={"question": "x"}, headers={"X-API-Key": "ada-key"})
            for live in (one, two, one, two)
        ]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    assert [reply.headers["x-ratelimit-limit"] for reply in replies] == ["3"] * 4
    assert replies[2].headers["x-ratelimit-remaining"] == "0"
    assert int(replies[3].headers["retry-after"]) > 50


def test_a_run_to_be_read_later_is_refused_at_once_too(redis_url: str) -> None:
    """It was said to have begun (201), and failed a moment later, since the store is asked meanwhile."""
    with (
        serving(create_app(qa(), api_keys=server(redis_url, requests_per_minute=2))) as one,
        serving(create_app(qa(), api_keys=server(redis_url, requests_per_minute=2))) as two,
    ):
        replies = [
            http.post(live.url + "/runs", json={"question": "x"}, headers={"X-API-Key": "ada-key"})
            for live in (one, one, two)
        ]
        assert [reply.status_code for reply in replies] == [201, 201, 429]
        assert int(replies[2].headers["retry-after"]) > 50
        assert two.app.runs.statistics()["refused"] == 1


WORKER = """
import asyncio, random, time
from contextlib import suppress
from functools import partial
from dspy_live.core.call import Call
from dspy_live.core.errors import RateLimited
from dspy_live.core.events import Predicted
from dspy_live.core.sink import DISCARD
from dspy_live.server.keys import minute
from dspy_live.server.keys.key import Key
from dspy_live.server.keys.shared_limits import SharedKeyLimits, SharedPlace
from dspy_live.server.keys.token import digest_of
from dspy_live.server.transport.auth import Keys

minute.MINUTE = 2.0
url, (seed, seconds, rate, at_once) = sys.argv[1], map(int, sys.argv[2:])
chance, out = random.Random(seed), []

async def program(call, sink):
    began = time.monotonic()
    try:
        await asyncio.sleep(chance.random() / 10)
    finally:
        out.append((call.inputs["asked"], began, time.monotonic()))
    return Predicted({})

async def one(keys):
    with suppress(RateLimited, TimeoutError):
        call = Call({"asked": time.monotonic()}, key="ada", program="qa")
        await asyncio.wait_for(keys(program)(call, DISCARD), chance.choice([None, None, 0.03]))

async def main():
    key = Key(name="ada", digest=digest_of("k"), requests_per_minute=rate, concurrency=at_once)
    keys = Keys([key], shared=partial(SharedKeyLimits, SharedPlace(url, timeout=20.0)))
    tell("ready")
    wait_for_a_word()
    tasks, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(out) <= rate // 3:  # one that stood still has its share to come
        tasks += [asyncio.create_task(one(keys)) for _ in range(chance.randint(0, 6))]
        await asyncio.sleep(chance.random() / 10)
        if chance.random() < 0.1:
            time.sleep(chance.random() / 5)  # a loop that is late
    await asyncio.gather(*tasks, return_exceptions=True)
    tell(out)

asyncio.run(main())
"""


def test_no_minute_and_no_moment_has_more_over_three_processes(redis_url: str) -> None:
    rate, at_once = 40, 4
    with Processes(WORKER, [[redis_url, seed, 3, rate, at_once] for seed in range(3)]) as workers:
        workers.hear()
        workers.go()
        out = sorted(tuple(times) for of_one in workers.hear() for times in of_one)
    # A run was let in between its asking and its beginning, and has its place at least until its end.
    fullest = max(sum(begin <= asked and began < begin + 2.0 for asked, began, _ in out) for begin, _, _ in out)
    most = max(sum(began <= at < ended for _, began, ended in out) for _, at, _ in out)
    assert fullest <= rate
    assert most <= at_once
    assert len(out) > rate, "it lets in what it may"
    assert minute.MINUTE == 60.0
