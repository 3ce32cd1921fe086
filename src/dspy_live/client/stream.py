"""A run as server-sent events: in one reply, or, for a resumable run, in as many as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from dspy_live.client.errors import ConnectionLost, error_of, error_of_reply, transport_error
from dspy_live.client.http import Endpoint, config_header
from dspy_live.client.reply import Reply, reply_of
from dspy_live.client.run import RemoteRun
from dspy_live.client.wire import event_of, loads, prediction_of
from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import LifecycleError, LiveError, NotFound
from dspy_live.core.events import Predicted, Started
from dspy_live.core.sink import Sink
from dspy_live.runtime.http.transport import TransportError
from dspy_live.sansio.sse import EventDecoder, ServerEvent

ERROR_BYTES = 1 << 20
RECONNECTS = 5
"""Attempts in a row that bring nothing; after any event the count begins again."""


class StreamSource:
    """A run that lives as long as its one reply: the service of one call.

    Args:
        endpoint: the server.
        prefix: the path of the program's routes.

    Attributes:
        id: the run's id, empty before it is known.
        reply: the outputs and what the server said of the run, once the prediction has come.
    """

    def __init__(self, endpoint: Endpoint, prefix: str) -> None:
        self.id = ""
        self.reply: Reply | None = None
        self._endpoint = endpoint
        self._prefix = prefix
        self._over = False
        self._seen = 0
        self._predicted: Predicted | None = None

    async def __call__(self, call: Call, sink: Sink) -> Predicted:
        try:
            path = f"{self._prefix}/predict/stream"
            await self._read(sink, "POST", path, dict(call.inputs), config_header(call.config))
        except TransportError as exc:
            raise transport_error(exc) from exc
        if not self._over:
            raise ConnectionLost("the reply ended before the run had")
        if self._predicted is None:
            raise LifecycleError("the run ended without a prediction")
        return self._predicted

    async def _read(self, sink: Sink, method: str, path: str, body: Any, headers: Mapping[str, str]) -> None:
        """Read one reply to its end. While the sink is full the socket is not read."""
        decoder = EventDecoder()
        async with self._endpoint.exchange(method, path, body, headers) as exchange:
            await exchange.headers_received()
            if exchange.status == 204:
                self._over = True
                return
            if exchange.status != 200:
                raise error_of_reply(exchange.status, await exchange.read(ERROR_BYTES, truncate=True))
            self.id = exchange.headers.get("x-run-id", self.id)

            def feed(data: bytes) -> None:
                for event in decoder.feed(data):
                    if not self._take(event, sink):
                        exchange.pause()

            exchange.on_body = feed
            while not await exchange.wait():
                await sink.room()
                exchange.resume()

    def _take(self, event: ServerEvent, sink: Sink) -> bool:
        """Take one event of the server's; False when the sink is full."""
        if event.event in ("done", "error"):
            self._over = True
            if event.event == "error":
                raise error_of(loads(event.data))
            return True
        self._seen += 1
        if event.event == "prediction":
            self._predicted, beside = prediction_of(event.data)
            self.reply = reply_of(self._predicted.outputs, beside, self.id)
            return True
        decoded = event_of(event.event, event.data)
        if isinstance(decoded, Started):
            self.id = self.id or decoded.run
        return sink.push(decoded)


class ResumableSource(StreamSource):
    """A run that survives a lost connection: its events are asked for again, after the last one that came.

    Args:
        endpoint: the server.
        prefix: the path of the program's routes.
        run_id: a run that was started before; a new one is started without it.
        after: the number of the last event that is known of it.
    """

    def __init__(self, endpoint: Endpoint, prefix: str = "", run_id: str = "", after: int = 0) -> None:
        super().__init__(endpoint, prefix)
        self.id = run_id
        self._seen = after

    async def __call__(self, call: Call, sink: Sink) -> Predicted:
        if not self.id:
            path = f"{self._prefix}/runs"
            started, _ = await self._endpoint.ask("POST", path, dict(call.inputs), config_header(call.config))
            self.id = started["run"]["id"]
        attempt = 0
        while not self._over:
            before = self._seen
            headers = {"Last-Event-ID": f"{self.id}:{self._seen}"} if self._seen else {}
            try:
                await self._read(sink, "GET", f"/runs/{self.id}/events", None, headers)
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
        # A run whose prediction was taken before it was resumed has none any more.
        return self._predicted or Predicted({})

    async def cancel(self) -> None:
        """Cancel the run on the server, unless it is over or was never started."""
        if self.id and not self._over:
            try:
                await self._endpoint.ask("DELETE", f"/runs/{self.id}", timeout=5.0)
            except LiveError:
                pass  # it is over, or it will be after its grace


class ResumableRun(RemoteRun):
    """A run that survives a lost connection. Leaving the block early cancels it, unless :meth:`detach` was called."""

    def __init__(
        self, source: ResumableSource, call: Call, buffer: Buffer | None, timeout: float | None, after: int = 0
    ) -> None:
        super().__init__(source, call, buffer, timeout)
        self._resumable = source
        self._after = after
        self._detached = False

    @property
    def position(self) -> int:
        """The number of the last event that was taken from this run, its prediction included: what to resume after."""
        return self._after + self._taken + (self._ended and self.reply is not None)

    def detach(self) -> tuple[str, int]:
        """Let the run go on without a reader, for the server's grace; returns what ``resume`` takes."""
        self._detached = True
        return self.id, self.position

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        if not self._detached:
            await self._resumable.cancel()
