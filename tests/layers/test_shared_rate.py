"""Requests and tokens per minute that several processes share through a real server."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.layers.shared_server import PATIENCE, row, settle
from tests.support.databases import Server, running_redis
from tests.support.processes import Processes
from tests.support.until import async_until

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, Overloaded, RateLimited
from dspy_live.core.events import Completion
from dspy_live.core.sink import DISCARD
from dspy_live.layers import rate
from dspy_live.layers._shared_window import Going
from dspy_live.layers.shared_rate import SharedRate
from dspy_live.runtime.stores import line
from dspy_live.runtime.stores.rate_script import WINDOW
from dspy_live.testing.scripted import ScriptedService

KEY = "dspy-live:rate:lm"


def shared(url: str, **options: Any) -> SharedRate:
    """A limit with a line of its own, as if it were another process's."""
    line._lines.clear()
    return SharedRate(url, "lm", **{"timeout": PATIENCE, **options})


async def call(layer: SharedRate, used: int | None = None, **more: Any) -> None:
    usage = {} if used is None else {"usage": {"total_tokens": used}}
    await layer(ScriptedService([Completion(usage)]))(Call({}, **more), DISCARD)


async def let_out(layer: SharedRate, count: int, **more: Any) -> int:
    """Send so many at once, and return how many are not refused."""
    results = await asyncio.gather(*(call(layer, **more) for _ in range(count)), return_exceptions=True)
    for result in results:
        assert result is None or isinstance(result, RateLimited), result
    return results.count(None)


# Over real processes, with a minute of two seconds: when each call went out, by the clock that all processes have.

WORKER = """
import asyncio, random, time
from contextlib import suppress
from dspy_live.core.call import Call
from dspy_live.core.errors import RateLimited
from dspy_live.core.events import Completion
from dspy_live.core.sink import DISCARD
from dspy_live.layers import SharedRate, rate

rate.MINUTE = 2.0
url, seed, seconds, limit = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
chance, out = random.Random(seed), []

async def service(call, sink):
    tokens = chance.randint(1, 10)
    out.append((time.monotonic(), tokens))
    await asyncio.sleep(chance.random() / 50)
    return Completion({"usage": {"total_tokens": tokens}})

async def one(layer, call):
    with suppress(RateLimited, TimeoutError):
        await asyncio.wait_for(layer(call, DISCARD), chance.choice([None, None, 0.05]))

async def main():
    # Tokens: each is estimated at the most that it uses, so that no minute may have more.
    limits = {"requests_per_minute": limit, "tokens_per_minute": 6 * limit}
    layer = SharedRate(url, "lm", estimate=lambda call: 10, timeout=30, **limits)
    tell("ready")
    wait_for_a_word()
    layer, tasks, end = layer(service), [], time.monotonic() + seconds
    while time.monotonic() < end or len(out) <= limit / 3:
        tasks += [asyncio.create_task(one(layer, Call({}))) for _ in range(chance.randint(0, 6))]
        await asyncio.sleep(chance.random() / 5)
        if chance.random() < 0.1:
            time.sleep(chance.random() / 3)  # a loop that is late
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tell(out)

asyncio.run(main())
"""


def test_no_minute_has_more_over_three_processes(redis_url: str) -> None:
    limit = 30
    with Processes(WORKER, [[redis_url, seed, 5, limit] for seed in range(3)]) as workers:
        workers.hear()
        workers.go()
        out = sorted(went for of_one in workers.hear() for went in of_one)
    fullest = max(len([1 for at, _ in out if begin <= at < begin + 2.0]) for begin, _ in out)
    most_tokens = max(sum(n for at, n in out if begin <= at < begin + 2.0) for begin, _ in out)
    assert fullest <= limit
    assert most_tokens <= 6 * limit
    assert len(out) > limit, "it lets out what it may"


def test_the_turn_of_a_process_that_is_killed_counts_and_is_free_after_a_minute(quick: None, redis_url: str) -> None:
    code = """
    import asyncio, os, signal
    from dspy_live.core.call import Call
    from dspy_live.core.sink import DISCARD
    from dspy_live.layers import SharedRate, rate
    from dspy_live.runtime.stores import line
    line.LEASE, rate.MINUTE = 0.5, 1.0
    line.TELL = line.BEAT = 60.0  # it is killed before it tells that the call went out

    async def service(call, sink):
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(SharedRate(sys.argv[1], "lm", requests_per_minute=1, timeout=30)(service)(Call({}), DISCARD))
    """
    rate_minute, rate.MINUTE = rate.MINUTE, 1.0
    try:
        with Processes(code, [[redis_url]]) as processes:
            assert processes.all[0].wait(30) == -signal.SIGKILL
        layer = shared(redis_url, requests_per_minute=1, max_wait=30)
        asyncio.run(call(layer))
        assert layer.statistics().waited_seconds > 0
    finally:
        rate.MINUTE = rate_minute


# With a clock that the test passes in: no minute is waited for.


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Redis]:
    with running_redis() as running, redis.Redis.from_url(f"redis://127.0.0.1:{running.port}") as raw:
        yield raw


class Holder:
    """One process's part, as figures."""

    def __init__(self, raw: redis.Redis, name: str, limit: int, tokens: int) -> None:
        self.raw, self.name, self.limits = raw, name, (limit, tokens)
        self.life = ""
        self.heard = self.gone = (0, 0)
        self.held: list[int] = []
        self.late: list[int] = []

    def ask(self, now: float, wants: list[int]) -> list[bytes]:
        held = (len(self.held), sum(self.held))
        args = [repr(now), self.name, self.life, "new", 15, 3, 1000, 60, 0.25, *self.limits, "", ""]
        args += [*self.heard, *self.gone, *held, 0, 1, 0, 0, len(wants), 0, *wants]
        answer = self.raw.eval(WINDOW.text, 1, KEY, *args)
        self.life, self.heard = answer[0].decode(), self.gone
        self.held += wants[: answer[2]]
        return list(answer)

    def go(self) -> int:
        tokens = self.held.pop(0)
        self.gone = (self.gone[0] + 1, self.gone[1] + tokens)
        return tokens


steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # which process
        st.one_of(st.just(0.0), st.floats(0, 0.4), st.floats(0, 40)),  # seconds that pass before it
        st.lists(st.integers(1, 40), max_size=4),  # the calls that want their turn, in tokens
        st.integers(0, 4),  # how many of those that have it go out now
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 8))
def test_no_minute_has_more_whatever_happens_between_a_turn_and_its_call(
    server: redis.Redis, steps: list[tuple[int, float, list[int], int]], limit: int
) -> None:
    server.flushall()
    holders = [Holder(server, str(n), limit, 100) for n in range(3)]
    now, out = 1_700_000_000.0, []
    for who, pause, wants, goes in steps:
        now += pause
        holder = holders[who]
        holder.ask(now, wants)
        if pause > 14:  # the others say that they live
            for other in holders:
                other.ask(now, [])
        for _ in range(min(goes, len(holder.held))):
            now += 0.003
            out.append((now, holder.go()))
    for begin, _ in out:
        inside = [tokens for at, tokens in out if begin <= at < begin + 60 - 1e-3]
        assert len(inside) <= limit
        assert sum(inside) <= 100


def test_a_wait_is_foretold(server: redis.Redis) -> None:
    server.flushall()
    now = 1_700_000_000.0
    one, other = (Holder(server, name, 3, 10**6) for name in "ab")
    for at in (0, 10, 20):
        one.ask(now + at, [1])
        one.go()
        one.ask(now + at, [])
    answer = other.ask(now + 30, [1, 1, 1, 1])
    assert (answer[2], float(answer[3])) == (0, pytest.approx(30))
    assert [float(wait) for wait in answer[6].split()] == pytest.approx([30, 40, 50, 90])
    assert other.ask(now + 59.9, [1])[2] == 0
    assert other.ask(now + 60, [1, 1])[2] == 1


# One process.


async def test_requests_of_one_process_count_in_the_other(redis_url: str) -> None:
    one, other = (shared(redis_url, requests_per_minute=10, max_wait=5) for _ in range(2))
    assert await let_out(one, 7) == 7
    assert await let_out(other, 7) == 3
    with pytest.raises(RateLimited, match=r"10 requests per minute is reached: this call would wait") as refused:
        await call(other)
    assert refused.value.status == 429
    assert 0 < (refused.value.retry_after or 0) <= 61
    assert other.statistics().requests_left == pytest.approx(0)


async def test_a_wait_past_the_deadline_is_refused_at_once(redis_url: str) -> None:
    one, other = (shared(redis_url, requests_per_minute=1) for _ in range(2))
    await call(one)
    with pytest.raises(RateLimited):
        await call(other, deadline=asyncio.get_running_loop().time() + 30)


async def test_an_estimate_that_was_too_high_makes_room_in_the_other_process(quick: None, redis_url: str) -> None:
    def estimate(_: Call) -> float:
        return 900

    one, other = (shared(redis_url, tokens_per_minute=1000, estimate=estimate, max_wait=30) for _ in range(2))
    for layer, used in ((one, 50), (other, 40), (one, 10), (one, 905)):
        await call(layer, used=used)
        await async_until(lambda: told(one, other))
    assert one._shared.used is not None
    with pytest.raises(RateLimited, match="1000 tokens per minute"):
        await call(other)


def told(*layers: SharedRate) -> bool:
    """True when the server has heard everything."""
    parts = [layer._shared for layer in layers]
    return all(part._heard == part._gone and not part._backs and not part._backlog for part in parts)


async def test_calls_that_leave_while_they_wait_have_taken_nothing(quick: None, redis_url: str) -> None:
    layer, other = (shared(redis_url, requests_per_minute=2, max_wait=5) for _ in range(2))
    gone = 0
    for turns in range(8):
        waiting = asyncio.create_task(layer._shared.turn(1, 5.0))
        for _ in range(turns):
            await asyncio.sleep(0.0003)
        waiting.cancel()
        results = await asyncio.gather(waiting, return_exceptions=True)
        gone += isinstance(results[0], Going)
    with redis.Redis.from_url(redis_url) as raw:

        def held() -> float:
            rows = [row for name, row in raw.hgetall(KEY).items() if name.startswith(b"h:")]
            return sum(float(row.split()[3]) for row in rows)

        await async_until(lambda: layer._shared._held == (0, 0) and told(layer) and held() == 0)
    assert await let_out(other, 3) == max(0, 2 - gone)


async def test_the_loop_is_not_held_up(redis_url: str) -> None:
    layer = shared(redis_url, requests_per_minute=10)
    with redis.Redis.from_url(redis_url) as raw:
        raw.client_pause(60_000, all=False)
        calling = asyncio.create_task(call(layer))
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert not calling.done()
        raw.client_unpause()
        await calling


async def test_a_server_that_comes_back_empty_is_told_the_requests_so_far(unsettled: None, redis_url: str) -> None:
    one, other = (shared(redis_url, requests_per_minute=10, max_wait=1000) for _ in range(2))
    assert await let_out(one, 4) == 4
    assert await let_out(other, 3) == 3
    await async_until(lambda: told(one, other))
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
        calls = [asyncio.create_task(call(other)) for _ in range(5)]
        await async_until(lambda: gone_out(raw) == 7)
        assert not any(task.done() for task in calls)
        settle(raw, KEY)
        await async_until(lambda: sum(task.done() for task in calls) >= 3)
        asked = row(raw, KEY, other._shared._line)[-1]
        await async_until(lambda: row(raw, KEY, other._shared._line)[-1] > asked + 0.1)
    assert sum(task.done() for task in calls) == 3
    for task in calls:
        task.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


def gone_out(raw: redis.Redis) -> float:
    """Return how many requests of the last minute the server knows."""
    return sum(float(kept.split()[1]) for name, kept in raw.hgetall(KEY).items() if name.startswith(b"s:"))


async def test_while_the_server_is_dead_each_process_has_the_limit_for_itself(
    quick: None, redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    one, other = (shared(url, requests_per_minute=10, max_wait=5) for _ in range(2))
    assert await let_out(one, 4) == 4
    redis_server.stop()
    assert await let_out(one, 10) == 6, "its own last minute counts"
    assert await let_out(other, 12) == 10
    redis_server.start()
    await async_until(lambda: caplog.text.count("is shared again") == 2)
    await async_until(lambda: not one._shared._backlog and not other._shared._backlog)
    assert await let_out(shared(url, requests_per_minute=20, max_wait=5), 5) == 0, "it was told what went out"


async def test_it_can_refuse_every_call_while_the_server_is_dead(quick: None, redis_server: Server) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    layer = shared(url, requests_per_minute=10, on_outage="refuse")
    redis_server.stop()
    with pytest.raises(Overloaded, match="does not answer"):
        await call(layer)
    redis_server.start()
    end = time.monotonic() + PATIENCE
    while True:
        try:
            await call(layer)
            break
        except Overloaded:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)


async def test_a_burst_is_for_all_together(quick: None, redis_url: str) -> None:
    one, other = (shared(redis_url, requests_per_minute=5, burst=0.8, max_wait=1) for _ in range(2))
    assert await let_out(one, 3) == 3
    assert await let_out(other, 3) == 1, "four may go out at once, and the next one in twelve seconds"


def test_threads_with_loops_of_their_own_share_it(redis_url: str) -> None:
    layer = shared(redis_url, requests_per_minute=10, max_wait=5)
    out: list[int] = []

    def work() -> None:
        out.append(asyncio.run(let_out(layer, 5)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(out) == 10


@pytest.mark.parametrize(
    "wrong",
    [{}, {"requests_per_minute": 0.5}, {"requests_per_minute": 1, "on_outage": "hope"}, {"tokens_per_minute": 0}],
)
def test_settings_that_can_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SharedRate("redis://127.0.0.1:1", "lm", **wrong)
