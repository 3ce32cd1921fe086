"""The typed WebSocket protocol: many runs on one connection, each with its own credit."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from dspy_live.client.errors import ConnectionLost, Unreachable, error_of, error_of_reply
from dspy_live.client.http import Endpoint
from dspy_live.client.reply import reply_of
from dspy_live.client.run import RemoteRun
from dspy_live.client.wire import event_from, loads
from dspy_live.core.call import Buffer
from dspy_live.core.events import Event, Partial, Predicted, Reasoning, TextDelta, Token
from dspy_live.runtime.channel.channel import Channel

_COUNTED = (Token, Partial, Reasoning, TextDelta)


class AsyncSocket:
    """One connection; enter it, then :meth:`start` runs on it. Leaving it cancels those that are under way."""

    def __init__(self, endpoint: Endpoint, prefix: str) -> None:
        self._endpoint = endpoint
        self._url = "ws" + endpoint.url.removeprefix("http") + prefix + "/ws"
        self._ids = itertools.count(1)
        self._runs: dict[int, SocketRun] = {}
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
    ) -> SocketRun:
        """Return a run to enter; it is started then. Leaving it early cancels it, and only it.

        ``buffer.size`` is its credit: as many tokens may be on their way, so that a slow reader of
        one run does not hold up the others.
        """
        frame: dict[str, Any] = {"type": "start", "inputs": {**(inputs or {}), **fields}}
        if config:
            frame["config"] = dict(config)
        if program is not None:
            frame["program"] = program
        return SocketRun(self, next(self._ids), frame, buffer or Buffer())

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Send one frame of the protocol. Raises :class:`ConnectionLost`."""
        if self._connection is None:
            raise RuntimeError("use the socket as: async with client.socket() as socket")
        try:
            await self._connection.send(orjson.dumps(frame).decode())
        except ConnectionClosed as exc:
            raise self._lost or ConnectionLost(f"the socket is closed: {exc}") from exc

    def add(self, number: int, run: SocketRun) -> None:
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


class SocketRun(RemoteRun):
    """One run of a socket."""

    def __init__(self, socket: AsyncSocket, number: int, frame: dict[str, Any], buffer: Buffer) -> None:
        super().__init__(buffer)
        self._socket = socket
        self._number = number
        self._frame = {**frame, "id": number, "credit": buffer.size}
        self._over = False
        self._owed = 0

    async def __aenter__(self) -> SocketRun:
        self._channel = Channel(self._buffer)
        self._socket.add(self._number, self)
        await self._socket.send(self._frame)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.drop(self._number)
        if self._channel is not None:
            self._channel.receiver.close()
        if not self._over:
            try:
                await self._socket.send({"type": "cancel", "id": self._number})
            except ConnectionLost:
                pass

    async def __anext__(self) -> Event:
        event = await super().__anext__()
        await self._give_credit([event])
        return event

    async def receive_many(self) -> list[Event]:
        events = await super().receive_many()
        await self._give_credit(events)
        return events

    def take(self, name: str, data: Any) -> None:
        """Take a frame of this run."""
        channel = self._channel
        if channel is None or channel.closed:
            return
        if name == "done":
            self._over = True
            channel.close()
        elif name == "error":
            self._over = True
            channel.close(error_of(data))
        elif name == "prediction":
            self.reply = reply_of(data["outputs"], data, self.id)
            channel.push(Predicted(data["outputs"]))
        else:
            event = event_from(name, data)
            self._begun(event)
            channel.push(event)

    def lost(self, error: Exception) -> None:
        """The socket is gone."""
        if self._channel is not None:
            self._channel.close(error)

    async def _give_credit(self, events: list[Event]) -> None:
        self._owed += sum(isinstance(event, _COUNTED) for event in events)
        if self._owed * 2 >= self._buffer.size and not self._over:
            owed, self._owed = self._owed, 0
            await self._socket.send({"type": "credit", "id": self._number, "n": owed})
