"""A server that is frozen, as behind a cut cable: connections stand, and nothing comes back until it thaws."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.layers.shared_server import PATIENCE, freeze, stop, thaw
from tests.support.databases import Server
from tests.support.until import async_until

from dspy_live.core.call import Call
from dspy_live.core.errors import LiveError
from dspy_live.core.events import Completion
from dspy_live.core.sink import DISCARD
from dspy_live.core.usage import Expected, LMRecord, LMUsage
from dspy_live.layers import SharedBudget, SharedLimit, SharedRate, SharedSingleFlight
from dspy_live.runtime.stores import line
from dspy_live.runtime.stores.line import Line
from dspy_live.testing.scripted import ScriptedService

Use = Callable[[], Awaitable[object]]


@pytest.fixture(autouse=True)
def apart(quick: None) -> None:
    """Each test has a line of its own."""
    line._lines.clear()


@pytest.fixture
def thawed(redis_server: Server) -> Iterator[Server]:
    yield redis_server
    thaw(redis_server)


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
    options = {"timeout": PATIENCE, **options}
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


def line_of(layer: Any) -> Line:
    if isinstance(layer, SharedRate):
        return layer._shared._line
    if isinstance(layer, SharedLimit):
        return layer._leases._line
    found: Line = layer._line
    return found


@pytest.mark.parametrize("kind", ["budget", "rate", "limit", "single flight"])
async def test_calls_go_on_and_all_is_shared_again_when_it_thaws(
    kind: str, thawed: Server, caplog: pytest.LogCaptureFixture
) -> None:
    layer = await asyncio.to_thread(made, kind, thawed)
    use = user_of(layer)
    await use()
    stop(thawed)
    uses = [asyncio.create_task(use()) for _ in range(20)]
    for _ in range(20):
        await asyncio.sleep(0.001)
        assert not any(task.done() for task in uses), "they wait, and the loop turns"
    thaw(thawed)
    await asyncio.gather(*uses)
    assert not told(thawed, "counts alone", caplog)
    freeze(thawed, line_of(layer))
    for _ in range(2):
        await asyncio.gather(*(use() for _ in range(20)))
        assert told(thawed, "counts alone", caplog) == 1
    thaw(thawed)
    end = time.monotonic() + PATIENCE
    while not told(thawed, "is shared again", caplog):
        assert time.monotonic() < end
        await use()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["budget", "rate", "limit"])
async def test_what_was_counted_alone_is_told_without_another_call(
    kind: str, thawed: Server, caplog: pytest.LogCaptureFixture
) -> None:
    layer = await asyncio.to_thread(made, kind, thawed)
    use = user_of(layer)
    freeze(thawed, line_of(layer))
    await asyncio.gather(*(use() for _ in range(5)))
    await async_until(lambda: told(thawed, "counts alone", caplog))
    thaw(thawed)
    if kind == "limit":  # nothing runs any more, and there is nothing to tell
        await use()
    await async_until(lambda: told(thawed, "is shared again", caplog))


@pytest.mark.parametrize("kind", ["budget", "rate", "limit"])
async def test_the_strict_refuse_until_it_thaws(kind: str, thawed: Server) -> None:
    layer = await asyncio.to_thread(made, kind, thawed, on_outage="refuse")
    use = user_of(layer)
    await use()
    freeze(thawed, line_of(layer))
    results = await asyncio.gather(*(use() for _ in range(20)), return_exceptions=True)
    for result in results:
        assert isinstance(result, LiveError), result
        assert (result.status, bool(result.retry_after)) == (503, True)
        assert "does not answer" in str(result)
    thaw(thawed)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            await use()
            break
        except LiveError:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
