"""Ending a run when the client of its request has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Receive

from dspy_live.server.errors import ClientGone
from dspy_live.server.transport.exchange import Exchange

Stop = Callable[[ClientGone], object]


def cancel_on_disconnect(receive: Receive, stop: Stop) -> Watch:
    """While inside, call ``stop`` with a :class:`ClientGone` as soon as the client has closed its connection.

    A connection of ours makes the call itself; anywhere else a task sleeps until ASGI's ``receive`` tells.
    """
    return Watch(receive, stop)


class Watch:
    """What :func:`cancel_on_disconnect` returns, for ``with``."""

    __slots__ = ("_before", "_exchange", "_receive", "_stop", "_task")

    def __init__(self, receive: Receive, stop: Stop) -> None:
        exchange: Any = getattr(receive, "__self__", None)
        self._exchange: Exchange | None = exchange if isinstance(exchange, Exchange) else None
        self._receive = receive if self._exchange is None else None
        self._stop = stop
        self._before: Stop | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        exchange = self._exchange
        if self._receive is not None:
            self._task = asyncio.get_running_loop().create_task(_wait(self._receive, self._stop))
        elif exchange is not None and exchange.gone:
            self._stop(ClientGone("the client closed its connection"))
        elif exchange is not None:
            self._before, exchange.on_gone = exchange.on_gone, self._stop

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._exchange is not None:
            self._exchange.on_gone = self._before


async def _wait(receive: Receive, stop: Stop) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stop(ClientGone("the client closed its connection"))
