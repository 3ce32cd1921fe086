"""Ending a run when the client of its request has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Receive

from dspy_live.server.errors import ClientGone


@contextmanager
def cancel_on_disconnect(receive: Receive, stop: Callable[[ClientGone], object]) -> Iterator[None]:
    """While inside, call ``stop`` with a :class:`ClientGone` as soon as the client has closed its connection.

    One task per request, which sleeps until then.
    """
    task = asyncio.get_running_loop().create_task(_wait(receive, stop))
    try:
        yield
    finally:
        task.cancel()


async def _wait(receive: Receive, stop: Callable[[ClientGone], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stop(ClientGone("the client closed its connection"))
