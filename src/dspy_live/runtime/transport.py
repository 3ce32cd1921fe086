"""The HTTP/1.1 client for LM calls: one callback from the socket to the reader of a body.

The parts are in :mod:`dspy_live.runtime.http`. A pool belongs to an event loop;
:func:`pool_for_running_loop` gives each loop its own.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress

from dspy_live.runtime.http.errors import (
    BodyTooLarge,
    ConnectFailed,
    ConnectionBroken,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    PoolClosed,
    ProtocolError,
    Redirected,
    TransportError,
)
from dspy_live.runtime.http.exchange import Exchange
from dspy_live.runtime.http.pool import HttpPool, PoolStatistics
from dspy_live.runtime.http.silence import Timeouts
from dspy_live.runtime.http.tls import TlsOptions

__all__ = [
    "BodyTooLarge",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionBroken",
    "Exchange",
    "FirstByteTimeout",
    "HttpPool",
    "IdleTimeout",
    "PoolClosed",
    "PoolRegistry",
    "PoolStatistics",
    "ProtocolError",
    "Redirected",
    "Timeouts",
    "TlsOptions",
    "TransportError",
    "pool_for_running_loop",
]


class PoolRegistry:
    """One :class:`HttpPool` per event loop, made when it is first asked for, closed when its loop ends."""

    def __init__(self) -> None:
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, HttpPool] = weakref.WeakKeyDictionary()
        self._keepers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[None, None]]
        self._keepers = weakref.WeakKeyDictionary()

    def get(self) -> HttpPool:
        """Return the running loop's pool. Raises ``RuntimeError`` when no loop runs in this thread."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None or pool.closed:
            pool = self._pools[loop] = HttpPool(loop)
            keeper = self._keepers[loop] = _close_with_loop(pool)
            with suppress(StopIteration):
                # Its first step, which waits for nothing: from now on the loop knows the generator.
                keeper.__anext__().send(None)
        return pool


async def _close_with_loop(pool: HttpPool) -> AsyncGenerator[None, None]:
    """Close the pool when the loop shuts its async generators down, as asyncio.run does at its end."""
    try:
        yield
    finally:
        await pool.aclose()


_registry = PoolRegistry()


def pool_for_running_loop() -> HttpPool:
    """Return the pool of the running event loop. It is closed with the loop by ``asyncio.run``."""
    return _registry.get()
