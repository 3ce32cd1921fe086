"""The clients that connect while a server shuts down: they get a reply and no reset."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from dspy_live.server.transport.address import BACKLOG
from dspy_live.server.transport.protocol import Protocol

HEAD_SECONDS = 1.0
"""Longest time that a connection without a request has to send one, before the server closes it."""

_TURN = 0.01


def accept_waiting(listeners: Iterable[Any]) -> list[socket.socket]:
    """Accept the connections that wait, at most a full queue of them for each listener, and return their sockets.

    The kernel resets those that a closed listener leaves behind. The loop would accept them too, but new ones would
    come meanwhile: with 40 clients that connect again and again, its queue was not empty within a second.
    """
    accepted: list[socket.socket] = []
    for listener in listeners:
        with socket.socket(fileno=os.dup(listener.fileno())) as copy:
            copy.setblocking(False)
            accepted.extend(_queue_of(copy))
    return accepted


def _queue_of(listener: socket.socket) -> Iterator[socket.socket]:
    with contextlib.suppress(OSError):  # none waits, or there is no descriptor left for one
        for _ in range(BACKLOG):
            yield listener.accept()[0]


async def await_heads(connections: Collection[Any]) -> None:
    """Wait for the requests of connections that have sent none yet, or a part of one."""
    now = asyncio.get_running_loop().time
    end = now() + HEAD_SECONDS
    # Polled: an event that each connection sets would cost every request.
    while any(isinstance(one, Protocol) and one.awaits_head for one in connections) and now() < end:  # noqa: ASYNC110
        await asyncio.sleep(_TURN)
