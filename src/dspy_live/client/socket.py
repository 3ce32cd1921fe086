"""The typed WebSocket protocol: many runs on one connection, each with its own credit."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from dspy_live.client.errors import ConnectionLost, Unreachable, error_of, error_of_reply
from dspy_live.client.http import Endpoint
from dspy_live.client.reply import Reply, reply_of
from dspy_live.client.run import RemoteRun
from dspy_live.client.wire import event_from, loads
from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import SPOKEN, Predicted, Started
from dspy_live.core.sink import DISCARD, Sink


class AsyncSocket:
    """One connection; enter it, then :meth:`start` runs on it. Leaving it cancels those that are under way."""

    def __init__(self, endpoint: Endpoint, prefix: str) -> None:
        self._endpoint = endpoint
        self._url = "ws" + endpoint.url.removeprefix("http") + prefix + "/ws"
        self._ids = itertools.count(1)
        self._runs: dict[int, SocketSource] = {}
        self._connect: connect | None = None
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._lost: Exception | None = None

    async def __aenter__(self) -> AsyncSocket:
        headers = self._endpoint.headers()
        agent = headers.pop("User-Agent")
        self._connect = connect(
            self._url,
            additional_headers=headers,
            user_agent_header=agent,
            open_timeout=self._endpoint.connect,
            compression=None,
            max_size=None,
        )
        try:
            self._connection = await self._connect.__aenter__()
        except InvalidStatus as exc:
            raise error_of_reply(exc.response.status_code, bytes(exc.response.body or b"")) from None
        except (OSError, TimeoutError, InvalidHandshake) as exc:
            raise Unreachable(f"{self._url}: {exc}") from exc
        self._reader = asyncio.create_task(self._read(self._connection))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connect is not None:
            await self._connect.__aexit__(kind, error, trace)
        if self._reader is not None:
            await asyncio.wait([self._reader])

    def start(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        config: Mapping[str, Any] | None = None,
        program: str | None = None,
        buffer: Buffer | None = None,
        **fields: Any,
    ) -> RemoteRun:
        """Return a run to enter; it is started then. Leaving it early cancels it, and only it.

        ``buffer.size`` is its credit: as many tokens may be on their way, so that a slow reader of
        one run does not hold up the others.
        """
        buffer = buffer or Buffer()
        source = SocketSource(self, next(self._ids), program, buffer.size)
        return RemoteRun(source, Call({**(inputs or {}), **fields}, config=config or {}), buffer)

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Send one frame of the protocol. Raises :class:`ConnectionLost`."""
        if self._connection is None:
            raise RuntimeError("use the socket as: async with client.socket() as socket")
        try:
            await self._connection.send(orjson.dumps(frame).decode())
        except ConnectionClosed as exc:
            raise self._lost or ConnectionLost(f"the socket is closed: {exc}") from exc

    def add(self, number: int, run: SocketSource) -> None:
        """Hand the frames of a number to a run."""
        self._runs[number] = run

    def drop(self, number: int) -> None:
        """Hand a number's frames to nobody any more."""
        self._runs.pop(number, None)

    async def _read(self, connection: ClientConnection) -> None:
        try:
            async for message in connection:
                frame = loads(message)
                run = self._runs.get(frame["id"])
                if run is not None:
                    run.take(frame["event"], frame["data"])
        except ConnectionClosed as exc:
            self._lost = ConnectionLost(f"the socket was closed: {exc}")
        except Exception as exc:
            self._lost = exc
        self._lost = self._lost or ConnectionLost("the socket was closed")
        for run in list(self._runs.values()):
            run.lost(self._lost)


class SocketSource:
    """One run of a socket: the service of one call.

    Args:
        socket: the connection.
        number: names the run on the connection.
        program: by name; the connection's own when ``None``.
        credit: tokens that may be on their way.

    Attributes:
        id: the run's id on the server, empty before it is known.
        reply: the outputs and what the server said of the run, once the prediction has come.
    """

    def __init__(self, socket: AsyncSocket, number: int, program: str | None, credit: int) -> None:
        self.id = ""
        self.reply: Reply | None = None
        self._socket = socket
        self._number = number
        self._program = program
        self._credit = credit
        self._owed = 0
        self._sink: Sink = DISCARD
        self._full = False
        self._over = False
        self._error: Exception | None = None
        self._predicted: Predicted | None = None
        self._changed = asyncio.Event()

    async def __call__(self, call: Call, sink: Sink) -> Predicted:
        self._sink = sink
        frame: dict[str, Any] = {"type": "start", "id": self._number, "inputs": dict(call.inputs)}
        frame |= {"credit": self._credit} | ({"config": dict(call.config)} if call.config else {})
        self._socket.add(self._number, self)
        try:
            await self._socket.send(frame | ({"program": self._program} if self._program is not None else {}))
            while not self._over:
                await self._changed.wait()
                self._changed.clear()
                if self._full:
                    await sink.room()
                    self._full = False
                await self._give_credit()
        finally:
            self._socket.drop(self._number)
            if not self._over:
                with suppress(ConnectionLost):
                    await self._socket.send({"type": "cancel", "id": self._number})
        if self._error is not None:
            raise self._error
        if self._predicted is None:
            raise LifecycleError("the run ended without a prediction")
        return self._predicted

    def take(self, name: str, data: Any) -> None:
        """Take a frame of this run. It wakes the run's task when there is something to do for it."""
        if name == "done":
            self._end()
        elif name == "error":
            self._end(error_of(data))
        elif name == "prediction":
            self._predicted = Predicted(data["outputs"])
            self.reply = reply_of(data["outputs"], data, self.id)
        else:
            event = event_from(name, data)
            if isinstance(event, Started):
                self.id = self.id or event.run
            self._full = not self._sink.push(event) or self._full
            self._owed += type(event) in SPOKEN
            if self._full or self._owed * 2 >= self._credit:
                self._changed.set()

    def lost(self, error: Exception) -> None:
        """The connection is gone."""
        self._end(error)

    def _end(self, error: Exception | None = None) -> None:
        if self._over:
            return  # such as the answer to credit that crossed the end on its way
        self._over = True
        self._error = error
        self._changed.set()

    async def _give_credit(self) -> None:
        if self._owed * 2 >= self._credit and not self._over:
            owed, self._owed = self._owed, 0
            await self._socket.send({"type": "credit", "id": self._number, "n": owed})
