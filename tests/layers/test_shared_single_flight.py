"""Identical calls of several processes share one run through a real server."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any

import pytest
import redis
from tests.layers.shared_server import PATIENCE
from tests.support.databases import Server
from tests.support.processes import Processes
from tests.support.until import async_until

from dspy_live.core.call import Call
from dspy_live.core.errors import LMFailed
from dspy_live.core.events import Predicted, Result, Started
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers import SharedSingleFlight, _shared_flight
from dspy_live.runtime.stores import line
from dspy_live.testing.scripted import Recorder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits of the protocol are short."""
    for name, seconds in {"BEAT": 0.05, "REST": 0.05}.items():
        monkeypatch.setattr(line, name, seconds)
    monkeypatch.setattr(_shared_flight, "LEASE", 60.0)


def shared(url: str, **options: Any) -> SharedSingleFlight:
    """A layer with a line of its own, as if it were another process's."""
    line._lines.clear()
    return SharedSingleFlight(url, "team", **{"timeout": PATIENCE, **options})


class Program:
    """A service whose runs end when the test says so."""

    def __init__(self) -> None:
        self.runs = self.cancelled = 0
        self.end = asyncio.Event()
        self.failure: Exception | None = None
        self.answer: Any = "42"

    async def __call__(self, call: Call, sink: Sink) -> Result:
        self.runs += 1
        sink.push(Started(call.id, "P"))
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return Predicted({"answer": self.answer})


def asks(
    layer: Any, program: Program, question: str = "why", sink: Sink = DISCARD, **more: Any
) -> asyncio.Task[Result]:
    return asyncio.create_task(layer(program)(Call({"question": question}, stream=False, **more), sink))


async def over(url: str) -> None:
    """Wait until the server knows of no flight."""
    with redis.Redis.from_url(url) as raw:
        await async_until(lambda: all(raw.type(key) != b"hash" for key in raw.keys("dspy-live:flight:*")))


def outputs(results: list[Result]) -> list[Any]:
    return [result.outputs for result in results if isinstance(result, Predicted)]


WORKER = """
import asyncio
from dspy_live.core.call import Call
from dspy_live.core.events import Predicted
from dspy_live.core.sink import DISCARD
from dspy_live.layers import Cache, SharedSingleFlight
from dspy_live.runtime.stores.redis import RedisStore

runs = 0

async def program(call, sink):
    global runs
    runs += 1
    await asyncio.sleep(0.2)
    return Predicted({"answer": call.inputs["n"] * 2})

async def main():
    store = RedisStore(sys.argv[1], timeout=30)
    layer = SharedSingleFlight(sys.argv[1], "team", timeout=30)(Cache(store)(program))
    tell("ready")
    wait_for_a_word()
    calls = [layer(Call({"n": n}, stream=False), DISCARD) for n in range(5) for _ in range(10)]
    answers = [result.outputs["answer"] for result in await asyncio.gather(*calls)]
    assert answers == [n * 2 for n in range(5) for _ in range(10)]
    tell(runs)
    await store.aclose()

asyncio.run(main())
"""


def test_150_calls_of_three_processes_for_five_answers_make_five_runs(redis_url: str) -> None:
    with Processes(WORKER, [[redis_url]] * 3) as workers:
        workers.hear()
        workers.go()
        assert sum(workers.hear()) == 5


def test_when_the_leader_is_killed_another_one_makes_the_run(quick: None, redis_url: str) -> None:
    code = """
    import asyncio
    from dspy_live.core.call import Call
    from dspy_live.core.sink import DISCARD
    from dspy_live.layers import SharedSingleFlight, _shared_flight
    from dspy_live.runtime.stores import line
    line.BEAT, _shared_flight.LEASE = 0.05, 60.0

    async def program(call, sink):
        tell("runs")
        await asyncio.to_thread(wait_for_a_word)
        _shared_flight.LEASE = 0.5
        await asyncio.Event().wait()

    layer = SharedSingleFlight(sys.argv[1], "team", timeout=30)
    asyncio.run(layer(program)(Call({"question": "why"}, stream=False), DISCARD))
    """

    async def follow() -> None:
        program, layer = Program(), shared(redis_url)
        program.end.set()
        following = asks(layer, program)
        await async_until(lambda: layer.statistics().following)
        lives = expires()
        await async_until(lambda: expires() > lives + 0.1)
        assert not program.runs
        processes.go()
        await async_until(lambda: program.runs or expires() < lives)
        processes.all[0].send_signal(signal.SIGKILL)
        await asyncio.wait_for(following, PATIENCE)
        assert program.runs == 1

    with Processes(code, [[redis_url]]) as processes, redis.Redis.from_url(redis_url) as raw:

        def expires() -> float:
            flights = [key for key in raw.keys("dspy-live:flight:*") if raw.type(key) == b"hash"]
            return float(raw.hget(flights[0], "expires") or 0.0) if flights else 0.0

        processes.hear()
        asyncio.run(follow())


async def test_the_others_get_the_result_and_no_more_than_that(quick: None, redis_url: str) -> None:
    one, other, program = shared(redis_url), shared(redis_url), Program()
    leading = asks(one, program)
    await async_until(lambda: program.runs)
    sink = Recorder()
    following = [asks(other, program, sink=sink), asks(other, program)]
    await async_until(lambda: other.statistics().following)
    program.end.set()
    assert outputs(await asyncio.gather(leading, *following)) == [{"answer": "42"}] * 3
    assert program.runs == 1
    assert [type(event) for event in sink.events] == [Started]
    assert (one.statistics().followed, other.statistics().followed) == (0, 1)
    # It is no cache: who comes after the end asks anew.
    await over(redis_url)
    await asks(other, program)
    assert program.runs == 2


async def test_calls_that_stream_and_other_questions_run_for_themselves(quick: None, redis_url: str) -> None:
    one, other, program = shared(redis_url), shared(redis_url), Program()
    tasks = [asks(one, program), asks(other, program, "who"), asks(other, program, version="2")]
    tasks.append(asyncio.create_task(other(program)(Call({"question": "why"}), DISCARD)))
    await async_until(lambda: program.runs == 4)
    program.end.set()
    await asyncio.gather(*tasks)


async def test_when_the_leaders_callers_leave_another_one_makes_the_run(quick: None, redis_url: str) -> None:
    one, other, program = shared(redis_url), shared(redis_url), Program()
    leading = asks(one, program)
    await async_until(lambda: program.runs)
    following = asks(other, program)
    await async_until(lambda: other.statistics().following)
    leading.cancel()
    await async_until(lambda: program.runs == 2)
    assert program.cancelled == 1
    program.end.set()
    assert outputs([await following]) == [{"answer": "42"}]


async def test_one_that_leaves_while_it_waits_is_not_missed(quick: None, redis_url: str) -> None:
    one, other, program = shared(redis_url), shared(redis_url), Program()
    leading = asks(one, program)
    await async_until(lambda: program.runs)
    for turns in range(6):
        following = asks(other, program)
        for _ in range(turns):
            await asyncio.sleep(0.002)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    program.end.set()
    await leading
    assert (program.runs, program.cancelled) == (1, 0)
    await over(redis_url)  # nobody leads for ever
    await asks(other, program)
    assert program.runs == 2


@pytest.mark.parametrize("why", ["it fails", "it is no JSON"])
async def test_without_a_result_to_hand_on_each_makes_its_own(why: str, quick: None, redis_url: str) -> None:
    one, other, program = shared(redis_url), shared(redis_url), Program()
    leading = asks(one, program)
    await async_until(lambda: program.runs)
    following = asks(other, program)
    await async_until(lambda: other.statistics().following)
    if why == "it fails":
        program.failure = LMFailed("cut")
    else:
        program.answer = object()
    program.end.set()
    results = await asyncio.gather(leading, following, return_exceptions=True)
    assert program.runs == 2
    assert all(isinstance(result, LMFailed) == (why == "it fails") for result in results)


async def test_while_the_server_is_dead_each_process_runs_alone(
    quick: None, redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    one, other, program = shared(url), shared(url), Program()
    tasks = [asks(one, program)]
    await async_until(lambda: program.runs)
    tasks.append(asks(other, program))
    await async_until(lambda: other.statistics().following)
    redis_server.stop()
    await async_until(lambda: program.runs == 2)
    program.end.set()
    assert outputs(await asyncio.gather(*tasks)) == [{"answer": "42"}] * 2
    await asks(one, program)
    await async_until(lambda: caplog.text.count("counts alone") == 2)
    redis_server.start()
    while one._outage.down or other._outage.down:
        await asyncio.gather(asks(one, program), asks(other, program))
        await asyncio.sleep(0.01)
    await async_until(lambda: caplog.text.count("is shared again") == 2)
    await over(url)
    program.end, program.runs = asyncio.Event(), 0
    tasks = [asks(one, program), asks(other, program)]
    await async_until(lambda: one.statistics().following or other.statistics().following)
    program.end.set()
    await asyncio.gather(*tasks)
    assert program.runs == 1


async def test_a_server_that_comes_back_empty_is_told_who_leads(quick: None, redis_url: str) -> None:
    one, other, program = shared(redis_url), shared(redis_url), Program()
    leading = asks(one, program)
    await async_until(lambda: program.runs)
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
        await async_until(raw.dbsize)
    following = asks(other, program)
    await async_until(lambda: other.statistics().following)
    program.end.set()
    await asyncio.gather(leading, following)
    assert program.runs == 1


async def test_a_strangers_result_in_the_server_is_none(quick: None, redis_url: str) -> None:
    one, other, program = shared(redis_url), shared(redis_url), Program()
    leading = asks(one, program)
    await async_until(lambda: program.runs)
    with redis.Redis.from_url(redis_url) as raw:
        (flight,) = raw.keys("dspy-live:flight:team:*")
        leader = raw.hget(flight, "leader")
        raw.set(flight + b":" + leader, b"\x80\x04cos\nsystem\n")
    following = asks(other, program)
    await async_until(lambda: program.runs == 2)
    program.end.set()
    await asyncio.gather(leading, following)
