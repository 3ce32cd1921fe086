"""A simulated LM that answers when the test tells it to: what must happen before has all the time that it needs."""

from __future__ import annotations

import asyncio
from typing import Any

from dspy_live.simulator import Simulator
from dspy_live.simulator.connection import Connection, Request


class HeldSimulator(Simulator):
    """Keeps the requests in ``held``, in their order, until :meth:`release` or until their client leaves.

    Args:
        allowed: requests that are answered before any is held.
    """

    def __init__(self, allowed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.held: list[tuple[Connection, Request]] = []
        self.arrived = 0
        """Requests that have come so far, answered or not."""
        self._allowed: float = allowed
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        self._loop = asyncio.get_running_loop()
        return await super().start(host, port)

    def handle(self, connection: Connection, request: Request) -> None:
        self.arrived += 1
        if self._allowed > 0:
            self._allowed -= 1
            super().handle(connection, request)
        else:
            self.held.append((connection, request))

    def closed(self, connection: Connection) -> None:
        self.held = [one for one in self.held if one[0] is not connection]
        super().closed(connection)

    def release(self) -> None:
        """Answer all that are held, and from now on each request as it comes. For any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._answer_all)

    def _answer_all(self) -> None:
        self._allowed = float("inf")
        held, self.held = self.held, []
        for connection, request in held:
            super().handle(connection, request)
