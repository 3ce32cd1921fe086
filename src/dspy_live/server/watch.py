"""Noticing that the client has gone, while its run is under way."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from dspy_live.server.active import ActiveRun
from dspy_live.server.errors import ClientGone


class Watch:
    """While entered, stops the run as soon as the client's connection is closed.

    One task per request, which sleeps until then. It ends with the block.
    """

    __slots__ = ("_receive", "_run", "_task")

    def __init__(self, receive: Receive, run: ActiveRun) -> None:
        self._receive = receive
        self._run = run

    def __enter__(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait())

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._run.stop(ClientGone("the client closed its connection"))
