"""A server that is frozen, as behind a cut cable: connections stand, and nothing comes back until it thaws."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.support.databases import Server
from tests.support.until import async_until

from dspy_live.core.call import Call
from dspy_live.core.errors import LiveError
from dspy_live.core.events import Completion
from dspy_live.core.sink import DISCARD
from dspy_live.core.usage import Expected, LMRecord, LMUsage
from dspy_live.layers import SharedBudget, SharedLimit, SharedRate, SharedSingleFlight
from dspy_live.runtime.stores import line
from dspy_live.testing.scripted import ScriptedService

Use = Callable[[], Awaitable[object]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits of the protocol are short."""
    for name, seconds in {"BEAT": 0.05, "LEASE": 1.0, "SETTLE": 0.2, "REST": 0.05, "TELL": 0.01}.items():
        monkeypatch.setattr(line, name, seconds)
    line._lines.clear()


@pytest.fixture
def thawed(redis_server: Server) -> Iterator[Server]:
    yield redis_server
    if redis_server.process is not None:
        redis_server.process.send_signal(signal.SIGCONT)


def user_of(layer: Any) -> Use:
    """Return what uses a layer once."""
    if isinstance(layer, SharedBudget):

        async def call() -> None:
            (await layer.reserve_async(Expected())).record(LMRecord(model="m", usage=LMUsage(1, 0, 1)))

        return call
    service = layer(ScriptedService([Completion({})]))
    return lambda: service(Call({"question": "why"}, stream=False), DISCARD)


def made(kind: str, server: Server, **options: Any) -> Any:
    url, name = f"redis://127.0.0.1:{server.port}", f"of {server.port}"
    options = {"timeout": 0.2, **options}
    if kind == "budget":
        return SharedBudget(url, name, max_calls=1000, **options)
    if kind == "rate":
        return SharedRate(url, name, requests_per_minute=1000, **options)
    if kind == "limit":
        return SharedLimit(url, name, 10, **options)
    return SharedSingleFlight(url, name, **options)


def told(server: Server, what: str, caplog: pytest.LogCaptureFixture) -> int:
    """Count the warnings of this server's: that of another test may still be missed by somebody."""
    lines = caplog.text.splitlines()
    return sum(what in text and f"of {server.port}" in text for text in lines)


def freeze(server: Server) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("kind", ["budget", "rate", "limit", "single flight"])
async def test_calls_go_on_and_all_is_shared_again_when_it_thaws(
    kind: str, thawed: Server, caplog: pytest.LogCaptureFixture
) -> None:
    use = user_of(await asyncio.to_thread(made, kind, thawed))
    await use()
    freeze(thawed)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    await asyncio.gather(*(use() for _ in range(20)))
    assert turns > 20, "the loop turns while they wait"
    assert told(thawed, "counts alone", caplog) == 1
    await asyncio.gather(*(use() for _ in range(20)))
    assert thawed.process is not None
    thawed.process.send_signal(signal.SIGCONT)
    end = time.monotonic() + 30
    while not told(thawed, "is shared again", caplog):
        assert time.monotonic() < end
        await use()
        await asyncio.sleep(0.01)
    turning.cancel()


@pytest.mark.parametrize("kind", ["budget", "rate", "limit"])
async def test_what_was_counted_alone_is_told_without_another_call(
    kind: str, thawed: Server, caplog: pytest.LogCaptureFixture
) -> None:
    layer = await asyncio.to_thread(made, kind, thawed)
    use = user_of(layer)
    freeze(thawed)
    await asyncio.gather(*(use() for _ in range(5)))
    await async_until(lambda: told(thawed, "counts alone", caplog))
    assert thawed.process is not None
    thawed.process.send_signal(signal.SIGCONT)
    if kind == "limit":  # nothing runs any more, and there is nothing to tell
        await use()
    await async_until(lambda: told(thawed, "is shared again", caplog))


@pytest.mark.parametrize("kind", ["budget", "rate", "limit"])
async def test_the_strict_refuse_until_it_thaws(kind: str, thawed: Server) -> None:
    use = user_of(await asyncio.to_thread(made, kind, thawed, on_outage="refuse"))
    await use()
    freeze(thawed)
    results = await asyncio.gather(*(use() for _ in range(20)), return_exceptions=True)
    for result in results:
        assert isinstance(result, LiveError), result
        assert (result.status, bool(result.retry_after)) == (503, True)
        assert "does not answer" in str(result)
    assert thawed.process is not None
    thawed.process.send_signal(signal.SIGCONT)
    end = time.monotonic() + 30
    while True:
        try:
            await use()
            break
        except LiveError:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
