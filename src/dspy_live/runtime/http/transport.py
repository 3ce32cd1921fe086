"""The HTTP/1.1 client for LM calls: one callback from the socket to the reader of a body.

The parts are in :mod:`dspy_live.runtime.http`. A pool belongs to an event loop;
:func:`pool_for_running_loop` gives each loop its own.
"""

from __future__ import annotations

import asyncio
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
    """One :class:`HttpPool` per event loop, made when it is first asked for, closed and forgotten when its loop ends.

    "Ends" is what ``asyncio.run`` and ``asyncio.Runner`` do: they shut down the loop's async generators,
    and one of those is the pool's. A loop that was closed without this is forgotten at the next :meth:`get`.
    """

    def __init__(self) -> None:
        self._pools: dict[asyncio.AbstractEventLoop, tuple[HttpPool, AsyncGenerator[None, None]]] = {}

    def __len__(self) -> int:
        return len(self._pools)

    def get(self) -> HttpPool:
        """Return the running loop's pool. Raises ``RuntimeError`` when no loop runs in this thread."""
        loop = asyncio.get_running_loop()
        found = self._pools.get(loop)
        if found is not None and not found[0]._closed:
            return found[0]
        for other in [other for other in list(self._pools) if other.is_closed()]:
            self._pools.pop(other, None)
        pool = HttpPool(loop)
        keeper = self._close_with_loop(loop, pool)
        self._pools[loop] = pool, keeper
        with suppress(StopIteration):
            # Its first step, which waits for nothing: from now on the loop knows the generator.
            keeper.__anext__().send(None)
        return pool

    async def _close_with_loop(self, loop: asyncio.AbstractEventLoop, pool: HttpPool) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await pool.aclose()
            found = self._pools.get(loop)
            if found is not None and found[0] is pool:
                del self._pools[loop]


_registry = PoolRegistry()


def pool_for_running_loop() -> HttpPool:
    """Return the pool of the running event loop. It is closed with the loop by ``asyncio.run``."""
    return _registry.get()
