"""A run as server-sent events: in one reply, or, for a resumable run, in as many as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from dspy_live.client.errors import ConnectionLost, error_of, error_of_reply, transport_error
from dspy_live.client.http import Endpoint
from dspy_live.client.reply import reply_of
from dspy_live.client.run import RemoteRun
from dspy_live.client.wire import event_of, loads, prediction_of
from dspy_live.core.call import Buffer
from dspy_live.core.errors import DeadlineExceeded, LiveError, NotFound
from dspy_live.runtime.channel.channel import Channel
from dspy_live.runtime.http.transport import Exchange, TransportError
from dspy_live.sansio.sse import EventDecoder, ServerEvent

ERROR_BYTES = 1 << 20
RECONNECTS = 5
"""Attempts in a row that bring nothing; after any event the count begins again."""


class StreamedRun(RemoteRun):
    """A run that lives as long as its one reply."""

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        *,
        buffer: Buffer,
        timeout: float | None = None,
    ) -> None:
        super().__init__(buffer)
        self._endpoint = endpoint
        self._path = path
        self._body: Mapping[str, Any] | None = body
        self._headers = headers
        self._timeout = timeout
        self._method = "POST"
        self._over = False
        self._seen = 0

    async def _pump(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._run(channel)
        except TimeoutError:
            channel.close(DeadlineExceeded(f"the run took longer than {self._timeout:g} s"))
        except TransportError as exc:
            channel.close(transport_error(exc))
        except Exception as exc:
            channel.close(exc)
        else:
            channel.close()

    async def _run(self, channel: Channel) -> None:
        await self._read(channel, self._path, self._headers)
        if not self._over:
            raise ConnectionLost("the reply ended before the run had")

    async def _read(self, channel: Channel, path: str, headers: Mapping[str, str]) -> None:
        """Read one reply to its end."""
        decoder = EventDecoder()
        exchange = self._endpoint.exchange(self._method, path, self._body, headers)
        async with exchange:
            await exchange.headers_received()
            if exchange.status == 204:
                self._over = True
                return
            if exchange.status != 200:
                raise error_of_reply(exchange.status, await exchange.read(ERROR_BYTES, truncate=True))
            self.id = exchange.headers.get("x-run-id", self.id)

            def feed(data: bytes) -> None:
                for event in decoder.feed(data):
                    self._take(event, channel, exchange)

            exchange.on_body = feed
            await exchange.done()

    def _take(self, event: ServerEvent, channel: Channel, exchange: Exchange) -> None:
        if event.event == "done":
            self._over = True
            return
        if event.event == "error":
            self._over = True
            raise error_of(loads(event.data))
        if event.event == "prediction":
            predicted, beside = prediction_of(event.data)
            self.reply = reply_of(predicted.outputs, beside, self.id)
            room = channel.push(predicted)
        else:
            decoded = event_of(event.event, event.data)
            self._begun(decoded)
            room = channel.push(decoded)
        self._seen += 1
        if not room:
            exchange.pause()
            channel.on_room(exchange.resume)


class ResumableRun(StreamedRun):
    """A run that survives a lost connection: its events are asked for again, after the last one that came.

    Leaving the block early cancels the run, unless :meth:`detach` was called.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        run_id: str = "",
        after: int = 0,
        *,
        start: tuple[str, Mapping[str, Any], Mapping[str, str]] | None = None,
        buffer: Buffer,
        timeout: float | None = None,
    ) -> None:
        super().__init__(endpoint, "", {}, {}, buffer=buffer, timeout=timeout)
        self.id = run_id
        self._start = start
        self._body = None
        self._method = "GET"
        self._seen = self._after = after
        self._detached = False

    @property
    def position(self) -> int:
        """The number of the last event that was taken from this run: what to resume after."""
        return self._after + self._taken

    def detach(self) -> tuple[str, int]:
        """Let the run go on without a reader, for the server's grace; returns what ``resume`` takes."""
        self._detached = True
        return self.id, self.position

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        if self.id and not self._over and not self._detached:
            try:
                await self._endpoint.ask("DELETE", f"/runs/{self.id}", timeout=5.0)
            except LiveError:
                pass  # it is over, or it will be after its grace

    async def _run(self, channel: Channel) -> None:
        if self._start is not None:
            path, body, headers = self._start
            reply, _ = await self._endpoint.ask("POST", path, body, headers)
            self.id = reply["run"]["id"]
        attempt = 0
        while not self._over:
            before = self._seen
            headers = {"Last-Event-ID": f"{self.id}:{self._seen}"} if self._seen else {}
            try:
                await self._read(channel, f"/runs/{self.id}/events", headers)
            except TransportError as exc:
                attempt = 0 if self._seen > before else attempt + 1
                if attempt > RECONNECTS:
                    raise ConnectionLost(f"the server did not come back: {exc}") from exc
            except NotFound as exc:
                if before == 0:
                    raise
                raise ConnectionLost(
                    "the server no longer has the run: its grace is over, or it was restarted"
                ) from exc
            if not self._over:
                await asyncio.sleep(min(2.0, 0.05 * 2**attempt))
