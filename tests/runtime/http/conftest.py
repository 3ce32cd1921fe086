"""Every test of the transport runs on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from tests.runtime.http.clock import Clock
from tests.runtime.http.peer import Peer

from dspy_live.runtime.http import exchange
from dspy_live.runtime.http.silence import Silence
from dspy_live.runtime.http.transport import HttpPool


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[HttpPool]:
    pool = HttpPool(proxies={})
    yield pool
    await pool.aclose()
    left = pool.statistics()
    assert (left.open, left.idle) == (0, 0)


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[Callable[..., Any]]:
    """Start servers that run a script per connection; they are closed at the end of the test."""
    peers: list[Peer] = []

    async def start(*args: Any, **kwargs: Any) -> Peer:
        peers.append(Peer(*args, **kwargs))
        await peers[-1].start()
        return peers[-1]

    yield start
    for one in peers:
        await one.stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the exchanges of this test measure silence; it moves when the test lets it."""
    clock = Clock()
    monkeypatch.setattr(exchange, "Silence", lambda loop, *args: Silence(clock, *args))  # type: ignore[arg-type]
    return clock
