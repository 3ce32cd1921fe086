"""A concurrency limit that several processes share through a real server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis
from tests.support.databases import Server
from tests.support.processes import Processes
from tests.support.until import async_until

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, Overloaded
from dspy_live.core.events import Completion, Result
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers.shared_limit import SharedLimit
from dspy_live.runtime.stores import line


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits of the protocol are short."""
    for name, seconds in {"BEAT": 0.05, "LEASE": 1.0, "SETTLE": 0.3, "REST": 0.05, "TELL": 0.01}.items():
        monkeypatch.setattr(line, name, seconds)


class Lm:
    """A service that ends when the test says so."""

    def __init__(self) -> None:
        self.active = self.most = 0
        self.end = asyncio.Event()

    async def __call__(self, call: Call, sink: Sink) -> Result:
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await self.end.wait()
        finally:
            self.active -= 1
        return Completion({})


def limit(url: str, concurrency: int, **options: Any) -> SharedLimit:
    """A limit with a line of its own, as if it were another process's."""
    line._lines.clear()
    return SharedLimit(url, "lm", concurrency, **options)


def send(layer: SharedLimit, service: Callable[..., Any], count: int) -> list[asyncio.Task[Result]]:
    return [asyncio.create_task(layer(service)(Call({}), DISCARD)) for _ in range(count)]


async def leave(tasks: list[asyncio.Task[Result]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


WORKER = """
import asyncio, time
from dspy_live.core.call import Call
from dspy_live.core.events import Completion
from dspy_live.core.sink import DISCARD
from dspy_live.layers import SharedLimit

times = []

async def service(call, sink):
    began = time.monotonic()
    await asyncio.sleep(0.01 + call.inputs["n"] % 4 / 100)
    times.append((began, time.monotonic()))
    return Completion({})

async def main():
    layer = SharedLimit(sys.argv[1], "lm", int(sys.argv[2]))(service)
    tell("ready")
    wait_for_a_word()
    await asyncio.gather(*(layer(Call({"n": n}), DISCARD) for n in range(int(sys.argv[3]))))
    tell(times)

asyncio.run(main())
"""


@pytest.mark.parametrize("concurrency", [1, 5])
def test_no_more_run_at_once_over_three_processes_and_all_get_their_turn(concurrency: int, redis_url: str) -> None:
    with Processes(WORKER, [[redis_url, concurrency, 20]] * 3) as workers:
        workers.hear()
        workers.go()
        times = workers.hear()
    assert [len(of_one) for of_one in times] == [20] * 3
    changes = sorted(
        (at, change) for of_one in times for began, ended in of_one for at, change in ((began, 1), (ended, -1))
    )
    active = most = 0
    for _, change in changes:
        active += change
        most = max(most, active)
    assert most <= concurrency
    # Nobody waits until another has had all of its turns.
    ends = [max(ended for _, ended in of_one) for of_one in times]
    starts = [min(began for began, _ in of_one) for of_one in times]
    assert max(starts) < min(ends)


def test_the_slots_of_a_process_that_is_killed_are_free_again(quick: None, redis_url: str) -> None:
    code = """
    import asyncio
    from dspy_live.core.call import Call
    from dspy_live.core.sink import DISCARD
    from dspy_live.layers import SharedLimit
    from dspy_live.runtime.stores import line
    line.LEASE, line.BEAT = 1.0, 0.1

    async def service(call, sink):
        tell("runs")
        await asyncio.Event().wait()

    asyncio.run(SharedLimit(sys.argv[1], "lm", 1)(service)(Call({}), DISCARD))
    """

    async def next_one() -> None:
        lm = Lm()
        lm.end.set()
        waiting = send(limit(redis_url, 1), lm, 1)
        done, _ = await asyncio.wait(waiting, timeout=0.2)
        assert not done
        processes.all[0].send_signal(signal.SIGKILL)
        await asyncio.wait_for(waiting[0], 30)

    with Processes(code, [[redis_url]]) as processes:
        processes.hear()
        asyncio.run(next_one())


async def test_a_long_call_keeps_its_slot(quick: None, redis_url: str) -> None:
    lm, other = Lm(), Lm()
    tasks = send(limit(redis_url, 1), lm, 1)
    await async_until(lambda: lm.active)
    tasks += send(limit(redis_url, 1), other, 1)
    with redis.Redis.from_url(redis_url) as raw:
        begun = raw.time()[0]
        await async_until(lambda: raw.time()[0] > begun + 2)
    assert (lm.active, other.active) == (1, 0)
    lm.end.set()
    await async_until(lambda: other.active)
    await leave(tasks)


async def test_a_call_that_leaves_while_it_waits_keeps_no_slot(quick: None, redis_url: str) -> None:
    layer, other, lm = limit(redis_url, 1), limit(redis_url, 1), Lm()
    for turns in range(8):
        waiting = send(layer, lm, 1)
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        await leave(waiting)
    lm.end.set()
    await asyncio.wait_for(asyncio.gather(*send(other, lm, 3)), 30)
    assert lm.most == 1
    await async_until(lambda: layer.statistics().active == layer.statistics().waiting == 0)


async def test_the_queue_is_bounded_in_each_process(redis_url: str) -> None:
    layer, lm = limit(redis_url, 1, queue=2), Lm()
    tasks = send(layer, lm, 3)
    await async_until(lambda: lm.active)
    with pytest.raises(Overloaded, match="the limit of 1 calls at once"):
        await layer(lm)(Call({}), DISCARD)
    await async_until(lambda: (layer.statistics().active, layer.statistics().waiting) == (1, 2))
    await leave(tasks)


async def test_while_the_server_is_dead_each_process_has_the_limit_for_itself(
    quick: None, redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url, lm = f"redis://127.0.0.1:{redis_server.port}", Lm()
    one, other = limit(url, 2), limit(url, 2)
    tasks = send(one, lm, 4)
    await async_until(lambda: lm.active == 2)
    redis_server.stop()
    tasks += send(other, lm, 4)
    await async_until(lambda: lm.active == 4)
    await async_until(lambda: caplog.text.count("counts alone") == 2)
    assert lm.most == 4
    redis_server.start()
    await async_until(lambda: caplog.text.count("is shared again") == 2)
    lm.end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    lm.most, lm.end = 0, asyncio.Event()
    tasks = [*send(one, lm, 4), *send(other, lm, 4)]
    await async_until(lambda: lm.active == 2)
    lm.end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert lm.most == 2


async def test_it_can_refuse_every_call_while_the_server_is_dead(quick: None, redis_server: Server) -> None:
    url, lm = f"redis://127.0.0.1:{redis_server.port}", Lm()
    layer = limit(url, 2, on_outage="refuse")
    running = send(layer, lm, 1)
    await async_until(lambda: lm.active == 1)
    redis_server.stop()
    with pytest.raises(Overloaded, match="does not answer") as refused:
        await layer(lm)(Call({}), DISCARD)
    assert refused.value.retry_after
    assert lm.active == 1, "what runs goes on"
    redis_server.start()
    lm.end.set()
    await running[0]
    end = time.monotonic() + 30
    while True:
        with suppress(Overloaded):
            await layer(lm)(Call({}), DISCARD)
            break
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_a_server_that_comes_back_empty_lets_no_more_in(quick: None, redis_url: str) -> None:
    one, other, lm, before = limit(redis_url, 3), limit(redis_url, 3), Lm(), Lm()
    before.end.set()
    await asyncio.gather(*send(other, before, 1))
    tasks = send(one, lm, 2)
    await async_until(lambda: lm.active == 2)
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
    tasks += send(other, lm, 3)
    await async_until(lambda: lm.active == 3)
    lm.end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert lm.most == 3


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"on_outage": "hope"}, {"timeout": 0}, {"url": "http://x"}])
def test_settings_that_can_not_work_are_refused(wrong: dict[str, Any]) -> None:
    options = {"url": "redis://127.0.0.1:1", "name": "lm", "concurrency": 1, **wrong}
    with pytest.raises(ConfigurationError):
        SharedLimit(**options)
