"""Writing to a client from plain calls: no task and no wake-up per piece while the client keeps up."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from functools import cache
from itertools import groupby
from typing import Any

from starlette.types import Message, Send

from dspy_live.runtime.scope import Room
from dspy_live.server.errors import ClientGone

log = logging.getLogger("dspy_live.server")

MOST_WAITING = 64
"""Messages that may wait for a ``send`` that is not uvicorn's own before the source is asked to pause."""

_AT_ONCE = {
    "dspy_live.server.transport.exchange.Exchange",
    "uvicorn.protocols.http.httptools_impl.RequestResponseCycle",
    "uvicorn.protocols.http.h11_impl.RequestResponseCycle",
    "uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol",
}
"""Classes whose ``send`` writes at once. By name: uvicorn takes a tenth of a second to import, and an app under another
server never needs it."""


@cache
def _writes_at_once(kind: type) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" in _AT_ONCE for base in kind.__mro__)


class Writer:
    """Sends ASGI messages in order, from calls that never wait. On the loop's thread only.

    uvicorn's own ``send`` writes to the transport at once and suspends only while the client reads too slowly. So its
    coroutine is driven by hand: that it ends at once is the usual case; one that suspends is finished by a task,
    together with what is written meanwhile. Under a middleware the task does it all, many pieces of a body in one send.

    Args:
        send: ASGI's.
        lost: called once with a :class:`ClientGone` when a write fails.
    """

    __slots__ = ("_context", "_direct", "_lost", "_over", "_room", "_send", "_task", "_waiting")

    def __init__(self, send: Send, lost: Callable[[ClientGone], object]) -> None:
        self._send = send
        self._lost = lost
        self._context = contextvars.copy_context()  # a push comes from anywhere; a middleware wants the request's own
        kind: Any = type(getattr(send, "__self__", None))
        self._direct = _writes_at_once(kind)
        self._room = Room()
        self._waiting: list[Message] = []
        self._task: asyncio.Task[None] | None = None
        self._over = False

    @property
    def idle(self) -> bool:
        """True while nothing waits to be written."""
        return self._task is None

    def write(self, message: Message) -> bool:
        """Write a message now, or when those before it are written. False asks to pause until :meth:`room`.

        After a failure and after :meth:`end` nothing is written any more.
        """
        if self._over:
            return True
        if self._task is None and self._direct:
            sending: Any = self._send(message)
            try:
                awaited = sending.send(None)
            except StopIteration:
                return True
            except Exception as exc:
                self._fail(exc)
                return True
            self._begin(_finish(sending, awaited))
        else:
            self._waiting.append(message)
            if self._task is None:
                self._begin(None)
        if self._direct or len(self._waiting) >= MOST_WAITING:
            self._room.set(False)
        return self._room.open

    async def room(self) -> None:
        """Wait until all is written, or nothing is written any more."""
        await self._room.wait()

    async def end(self, *messages: Message) -> None:
        """Write ``messages`` as the last ones and wait until all is written."""
        if self._over:
            return
        self._over = True
        self._waiting += messages
        if self._task is None:
            await self._write_waiting(None)
        else:
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Drop what is not written yet."""
        self._over = True
        self._waiting.clear()
        self._room.set(True)
        if self._task is not None:
            self._task.cancel()

    def _begin(self, begun: Awaitable[None] | None) -> None:
        work = self._write_waiting(begun)
        self._task = asyncio.get_running_loop().create_task(work, context=self._context)

    async def _write_waiting(self, begun: Awaitable[None] | None) -> None:
        try:
            if begun is not None:
                await begun
            while self._waiting:
                messages, self._waiting = self._waiting, []
                for message in _merged(messages):
                    await self._send(message)
        except Exception as exc:
            self._fail(exc)
        finally:
            self._task = None
            self._room.set(True)

    def _fail(self, exc: Exception) -> None:
        self._over = True
        self._waiting.clear()
        if not isinstance(exc, OSError):  # which is how uvicorn says that the client has gone
            log.warning("writing to a client failed: %s: %s", type(exc).__name__, exc)
        gone = ClientGone("the client closed its connection")
        gone.__cause__ = exc
        self._lost(gone)


class BodyWriter:
    """Writes the body of a reply through ASGI's ``send``, as our own ``Exchange`` does without it."""

    __slots__ = ("_last", "_writer", "close", "room", "sent")

    def __init__(self, send: Send, lost: Callable[[ClientGone], object]) -> None:
        self._writer = Writer(send, lost)
        self._last: tuple[Message, ...] = ()
        self.sent = 0
        """Bytes of the body so far."""
        self.room = self._writer.room
        self.close = self._writer.close

    @property
    def idle(self) -> bool:
        """True while nothing waits to be written."""
        return self._writer.idle

    def sent_so_far(self) -> int:
        """Return :attr:`sent`."""
        return self.sent

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]], *pieces: bytes) -> bool:
        """Write the head and the first pieces. False asks to pause until :meth:`room`."""
        room = self._writer.write({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            room = self.write(piece)
        return room

    def write(self, piece: bytes) -> bool:
        """Write a piece. False asks to pause until :meth:`room`."""
        self.sent += len(piece)
        return self._writer.write({"type": "http.response.body", "body": piece, "more_body": True})

    def write_soon(self, piece: bytes) -> bool:
        """As :meth:`write`: a middleware has a turn of its own for each message."""
        return self.write(piece)

    def end(self, piece: bytes = b"") -> None:
        """Let ``piece`` be the last one, which :meth:`flushed` writes."""
        self.sent += len(piece)
        self._last = ({"type": "http.response.body", "body": piece, "more_body": False},)

    async def flushed(self) -> None:
        """Write what is left and wait until the client has been sent all."""
        await self._writer.end(*self._last)


@types.coroutine
def _finish(sending: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """Await the rest of a coroutine that was begun by hand and suspended on the future ``awaited``."""
    try:
        yield awaited
        yield from sending.__await__()
    finally:
        sending.close()


def _merged(messages: Iterable[Message]) -> Iterator[Message]:
    """Join neighbouring pieces of a body: a middleware takes as long for one piece as for many."""
    for is_body, group in groupby(messages, lambda message: message["type"] == "http.response.body"):
        if is_body:
            pieces = list(group)
            yield {**pieces[-1], "body": b"".join([piece["body"] for piece in pieces])}
        else:
            yield from group
