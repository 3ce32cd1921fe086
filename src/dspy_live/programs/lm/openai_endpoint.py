"""The fast path: one chat-completions request over our own transport, as a Service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import pydantic

from dspy_live.core.call import Call
from dspy_live.core.sink import Sink, alive
from dspy_live.programs.internals import _strict_json_schema
from dspy_live.programs.lm.errors import http_error
from dspy_live.runtime.channel.reading import Readable
from dspy_live.runtime.http.transport import Exchange, Timeouts, TransportError, pool_for_running_loop
from dspy_live.sansio.openai import Delta, StreamParser, chat_body, parse_reply, refuses_n, refuses_stream_options

_ERROR_BODY = 64 << 10

# The reply has said that it is complete; a server that then leaves its body open is not waited for.
_LINGER = 0.25

# Endpoints that refused ``stream_options`` once are not asked again; bounded by the number of endpoints.
_without_usage: set[str] = set()
# The same for those that refuse more than one completion a request: the LM is asked once for each.
_without_n: set[str] = set()


class OpenAIEndpoint:
    """An OpenAI-compatible endpoint.

    The call's inputs are the keyword arguments of a chat completion. It answers with ``TextDelta``
    and ``Reasoning`` of the first choice where the call asks for a stream, and one ``Completion``
    with the whole reply as a dict. Raises DSPy's ``LMError``s and the transport's own errors.
    """

    def __init__(self, url: str, headers: dict[str, str], model: str, timeouts: Timeouts, lm: str) -> None:
        self.url = url
        self.headers = headers
        self.model = model
        self.timeouts = timeouts
        self.lm = lm

    def open(self, call: Call) -> _Request:
        """Prepare the request; entering sends it, leaving it early closes the socket at once."""
        return _Request(self, call)


class _Request(Readable):
    """One request: a context manager, and the receiver that it gives."""

    __slots__ = ("_call", "_endpoint", "_exchange", "_linger", "_n", "_paused", "_sink", "_usage", "_wire")

    def __init__(self, endpoint: OpenAIEndpoint, call: Call) -> None:
        self._endpoint = endpoint
        self._call = call
        self._exchange: Exchange | None = None
        self._paused = False
        self._linger: asyncio.TimerHandle | None = None
        self._wire: StreamParser | None = None
        self._sink: Sink | None = None
        self._reading = None

    async def __aenter__(self) -> _Request:
        await self._send()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._linger is not None:
            self._linger.cancel()
        try:
            if self._reading is not None:
                await self._reading.aclose()
        finally:
            if self._exchange is not None:
                await self._exchange.__aexit__(kind, error, traceback)

    async def _send(self) -> None:
        """Send the request in the shape that the endpoint takes, as far as is known by now."""
        endpoint, call = self._endpoint, self._call
        # What this request was sent with: others to the same endpoint may learn meanwhile what it refuses.
        self._usage = call.stream and endpoint.url not in _without_usage
        inputs = call.inputs if endpoint.url not in _without_n else {**call.inputs, "n": None}
        self._n = inputs.get("n") or 1
        body = chat_body(_wire(inputs), stream=call.stream, usage=self._usage, model=endpoint.model)
        headers = {**endpoint.headers, "Accept": "text/event-stream"} if call.stream else endpoint.headers
        exchange = pool_for_running_loop().exchange("POST", endpoint.url, headers, body, endpoint.timeouts)
        self._exchange = await exchange.__aenter__()

    async def attach(self, sink: Sink) -> dict[str, Any]:
        """Read the reply, hand its words to ``sink`` as they arrive, and return the whole of it."""
        exchange = self._exchange
        assert exchange is not None
        await exchange.headers_received()
        if exchange.status >= 400:
            body = await exchange.read(_ERROR_BODY, truncate=True)
            if (refused := self._refused(exchange.status, body)) is not None:
                refused.add(self._endpoint.url)
                await exchange.__aexit__(None, None, None)
                await self._send()
                return await self.attach(sink)
            raise http_error(exchange.status, exchange.headers, body, self._endpoint.lm, now=time.time())
        if not self._call.stream or "event-stream" not in exchange.headers.get("content-type", "event-stream"):
            reply = parse_reply(await exchange.read())
            message = (reply["choices"][0].get("message") or {}) if reply.get("choices") else {}
            if thought := message.get("reasoning_content") or message.get("reasoning"):
                sink.reasoning(thought)
            if text := message.get("content"):
                sink.text(text)
            return reply
        wire = self._wire = StreamParser(n=self._n)
        self._sink = sink
        exchange.on_body = self._received
        try:
            await exchange.done()
        except TransportError:
            if not wire.done:
                raise
        self._say(wire.finish())
        return wire.reply()

    def _refused(self, status: int, body: bytes) -> set[str] | None:
        """Return where to note what the endpoint refuses and can be asked without, or ``None``."""
        if self._usage and refuses_stream_options(status, body):
            return _without_usage
        return _without_n if self._n > 1 and refuses_n(status, body) else None

    def _received(self, data: bytes) -> None:
        wire = self._wire
        assert wire is not None
        self._say(wire.feed(data))
        if wire.done and self._linger is None and self._exchange is not None:
            self._linger = asyncio.get_running_loop().call_later(_LINGER, self._exchange.abort)

    def _say(self, deltas: list[Delta]) -> None:
        sink = self._sink
        assert sink is not None
        room = True
        for delta in deltas:
            if delta.index or delta.kind == "tool":
                alive(sink)
            elif delta.kind == "text":
                room = sink.text(delta.text)
            elif delta.kind == "reasoning":
                room = sink.reasoning(delta.text)
        if not room and not self._paused and self._exchange is not None:
            self._paused = True
            self._exchange.pause()
            sink.on_room(self._resume)

    def _resume(self) -> None:
        self._paused = False
        if self._exchange is not None:
            self._exchange.resume()


def _wire(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """A pydantic class as ``response_format`` is sent as the strict schema that DSPy makes of it."""
    format_ = inputs.get("response_format")
    if not (isinstance(format_, type) and issubclass(format_, pydantic.BaseModel)):
        return inputs
    schema = {"name": format_.__name__, "schema": _strict_json_schema(format_.model_json_schema()), "strict": True}
    return {**inputs, "response_format": {"type": "json_schema", "json_schema": schema}}
