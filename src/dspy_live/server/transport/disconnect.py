"""Ending a run when the client of its request has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import Receive

from dspy_live.server.errors import ClientGone
from dspy_live.server.transport.exchange import Exchange

if TYPE_CHECKING:
    from dspy_live.server.transport.http import Request

Stop = Callable[[ClientGone], object]


def cancel_on_disconnect(request: Request, stop: Stop) -> Watch | WatchTask:
    """While inside, call ``stop`` with a :class:`ClientGone` as soon as the client has closed its connection.

    A connection of ours makes the call itself; anywhere else a task sleeps until ASGI's ``receive`` tells.
    """
    exchange = request.exchange
    return WatchTask(request.receive, stop) if exchange is None else Watch(exchange, stop)


class Watch:
    """Has the connection of ``exchange`` make the call."""

    __slots__ = ("_before", "_exchange", "_stop")

    def __init__(self, exchange: Exchange, stop: Stop) -> None:
        self._exchange = exchange
        self._stop = stop
        self._before: Stop | None = None

    def __enter__(self) -> None:
        exchange = self._exchange
        if exchange.gone:
            self._stop(ClientGone("the client closed its connection"))
        else:
            self._before, exchange.on_gone = exchange.on_gone, self._stop

    def __exit__(self, *_: object) -> None:
        self._exchange.on_gone = self._before


class WatchTask:
    """Waits for ``receive`` to tell, in a task."""

    __slots__ = ("_receive", "_stop", "_task")

    def __init__(self, receive: Receive, stop: Stop) -> None:
        self._receive = receive
        self._stop = stop

    def __enter__(self) -> None:
        self._task = asyncio.get_running_loop().create_task(_wait(self._receive, self._stop))

    def __exit__(self, *_: object) -> None:
        self._task.cancel()


async def _wait(receive: Receive, stop: Stop) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stop(ClientGone("the client closed its connection"))
