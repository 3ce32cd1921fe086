"""Tasks that wait for somebody's state to change."""

from __future__ import annotations

import asyncio


class Waiters:
    """Wake all who wait; each then looks for itself whether what it waits for has come."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next :meth:`wake`. Cancelling one who waits leaves the others."""
        future = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        try:
            await future
        finally:
            if future in self._futures:
                self._futures.remove(future)

    def wake(self) -> None:
        """Wake all who wait now."""
        for future in self._futures:
            if not future.done():
                future.set_result(None)
        self._futures.clear()
