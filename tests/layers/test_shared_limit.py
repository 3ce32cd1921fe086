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
from tests.layers.shared_server import PATIENCE, row, settle
from tests.support.databases import Server
from tests.support.processes import Processes
from tests.support.until import async_until

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, Overloaded
from dspy_live.core.events import Completion, Result
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers.shared_limit import SharedLimit
from dspy_live.runtime.stores import line

KEY = "dspy-live:limit:lm"


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
    return SharedLimit(url, "lm", concurrency, **{"timeout": PATIENCE, **options})


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
from dspy_live.layers import SharedLimit, _leases

_leases._KEEPS_PLACE = 60.0  # who stands still for a while keeps its place
times = []

async def service(call, sink):
    began = time.monotonic()
    await asyncio.sleep(0.01 + call.inputs["n"] % 4 / 100)
    times.append((began, time.monotonic()))
    return Completion({})

async def main():
    layer = SharedLimit(sys.argv[1], "lm", int(sys.argv[2]), timeout=30)(service)
    tell("ready")
    wait_for_a_word()
    await asyncio.gather(*(layer(Call({"n": n}), DISCARD) for n in range(int(sys.argv[3]))))
    tell(times)

asyncio.run(main())
"""


@pytest.mark.parametrize("concurrency", [1, 5])
async def test_no_more_run_at_once_over_three_processes_and_all_get_their_turn(
    concurrency: int, redis_url: str
) -> None:
    first = Lm()
    with Processes(WORKER, [[redis_url, concurrency, 20]] * 3) as workers, redis.Redis.from_url(redis_url) as raw:
        workers.hear()
        running = send(limit(redis_url, concurrency), first, concurrency)
        await async_until(lambda: first.active == concurrency)
        workers.go()
        await async_until(lambda: len(waiting(raw)) == 3)
        first.end.set()
        await asyncio.gather(*running)
        times = await asyncio.to_thread(workers.hear)
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


def waiting(raw: redis.Redis) -> list[bytes]:
    """Return the processes of which calls wait for a slot."""
    return [name for name, kept in raw.hgetall(KEY).items() if name[:2] == b"h:" and float(kept.split()[2])]


def test_the_slots_of_a_process_that_is_killed_are_free_again(quick: None, redis_url: str) -> None:
    code = """
    import asyncio
    from dspy_live.core.call import Call
    from dspy_live.core.sink import DISCARD
    from dspy_live.layers import SharedLimit
    from dspy_live.runtime.stores import line
    line.LEASE, line.BEAT = 60.0, 0.1

    async def service(call, sink):
        tell(layer._leases._line.holder)
        await asyncio.to_thread(wait_for_a_word)
        line.LEASE = 1.0
        await asyncio.Event().wait()

    layer = SharedLimit(sys.argv[1], "lm", 1, timeout=30)
    asyncio.run(layer(service)(Call({}), DISCARD))
    """

    async def next_one() -> None:
        lm = Lm()
        lm.end.set()
        following = send(limit(redis_url, 1), lm, 1)
        await async_until(lambda: waiting(raw))
        assert not lm.most
        processes.go()
        await async_until(lambda: lives_until() < raw.time()[0] + 10)
        processes.all[0].send_signal(signal.SIGKILL)
        await asyncio.wait_for(following[0], PATIENCE)

    with Processes(code, [[redis_url]]) as processes, redis.Redis.from_url(redis_url) as raw:

        def lives_until() -> float:
            kept = raw.hget(KEY, f"h:{holder}")
            return 0.0 if kept is None else float(kept.split()[0])

        (holder,) = processes.hear()
        asyncio.run(next_one())


async def test_a_long_call_keeps_its_slot(quick: None, redis_url: str) -> None:
    lm, other = Lm(), Lm()
    layer = limit(redis_url, 1)
    tasks = send(layer, lm, 1)
    await async_until(lambda: lm.active)
    tasks += send(limit(redis_url, 1), other, 1)
    with redis.Redis.from_url(redis_url) as raw:
        await async_until(lambda: waiting(raw))
        first = row(raw, KEY, layer._leases._line)
        await async_until(lambda: row(raw, KEY, layer._leases._line)[0] > first[0] + 0.2)
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
    await asyncio.wait_for(asyncio.gather(*send(other, lm, 3)), PATIENCE)
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
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    lm.most, lm.end = 0, asyncio.Event()
    tasks = [*send(one, lm, 4), *send(other, lm, 4)]
    await async_until(lambda: lm.active == 2)
    lm.end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
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
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(Overloaded):
            await layer(lm)(Call({}), DISCARD)
            break
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_a_server_that_comes_back_empty_lets_no_more_in(unsettled: None, redis_url: str) -> None:
    one, other, lm, before = limit(redis_url, 3), limit(redis_url, 3), Lm(), Lm()
    before.end.set()
    await asyncio.gather(*send(other, before, 1))
    tasks = send(one, lm, 2)
    await async_until(lambda: lm.active == 2)
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
        tasks += send(other, lm, 3)
        lines = [layer._leases._line for layer in (one, other)]
        await async_until(lambda: all(row(raw, KEY, line) for line in lines))
        assert lm.active == 2
        settle(raw, KEY)
    other._leases._line.soon(other._leases)
    await async_until(lambda: lm.active == 3)
    lm.end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert lm.most == 3


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"on_outage": "hope"}, {"timeout": 0}, {"url": "http://x"}])
def test_settings_that_can_not_work_are_refused(wrong: dict[str, Any]) -> None:
    options = {"url": "redis://127.0.0.1:1", "name": "lm", "concurrency": 1, **wrong}
    with pytest.raises(ConfigurationError):
        SharedLimit(**options)
