"""Tasks that wait for somebody's state to change."""

from __future__ import annotations

import asyncio


class Condition:
    """Wakes all tasks that wait; each then looks for itself whether its condition holds. ``notify`` is a plain call."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next :meth:`notify`. Cancelling one of the waiting tasks leaves the others."""
        future = self.promise()
        try:
            await future
        finally:
            self.forget(future)

    def promise(self) -> asyncio.Future[None]:
        """Return what the next :meth:`notify` fulfils; who has awaited it says :meth:`forget`."""
        future = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        return future

    def forget(self, future: asyncio.Future[None]) -> None:
        """Nobody waits for it any more."""
        if future in self._futures:
            self._futures.remove(future)

    def notify(self) -> None:
        """Wake all tasks that wait now."""
        if not self._futures:
            return
        for future in self._futures:
            if not future.done():
                future.set_result(None)
        self._futures.clear()
