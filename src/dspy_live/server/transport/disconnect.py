"""Noticing that the client has gone, while its request is being answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from starlette.types import Receive

from dspy_live.server.errors import ClientGone


class Watch:
    """While entered, calls ``gone`` with a :class:`ClientGone` as soon as the client's connection is closed.

    One task per request, which sleeps until then. It ends with the block.
    """

    __slots__ = ("_gone", "_receive", "_task")

    def __init__(self, receive: Receive, gone: Callable[[ClientGone], Any]) -> None:
        self._receive = receive
        self._gone = gone

    def __enter__(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait())

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone(ClientGone("the client closed its connection"))
