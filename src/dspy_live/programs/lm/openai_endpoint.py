"""The fast path: one chat-completions request over our own transport, as a Service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import pydantic

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Reasoning, TextDelta
from dspy_live.core.outlet import outlet_of
from dspy_live.core.sink import Sink
from dspy_live.programs.internals import _strict_json_schema
from dspy_live.programs.lm.errors import http_error
from dspy_live.programs.lm.token_limit import with_named_limit
from dspy_live.runtime.http.splice import Splice
from dspy_live.runtime.http.transport import Exchange, Timeouts, TransportError, pool_for_running_loop
from dspy_live.runtime.native import native
from dspy_live.sansio.openai import Delta, StreamParser, chat_body, parse_reply, refuses_n, refuses_stream_options
from dspy_live.sansio.openai.choice import Choice

_ERROR_BODY = 64 << 10

# The reply has said that it is complete; a server that then leaves its body open is not waited for.
_LINGER = 0.25

# Endpoints that refused ``stream_options`` once are not asked again; bounded by the number of endpoints.
_without_usage: set[str] = set()
# The same for those that refuse more than one completion a request: the LM is asked once for each.
_without_n: set[str] = set()

_AS_STREAMED = (str, type(None))
"""The types of a content that a stream has, too."""

AT_WORK = TextDelta("")
"""Says that the LM is at work on something that is no text of its first completion."""


class OpenAIEndpoint:
    """An OpenAI-compatible endpoint.

    The call's inputs are the keyword arguments of a chat completion. It pushes ``TextDelta`` and ``Reasoning`` of the
    first choice and returns the whole reply as a dict. Raises DSPy's ``LMError``s and the transport's own errors.
    Cancelling a call closes its socket at once.

    Args:
        url: of its chat completions.
        headers: of each request.
        model: its own name of the model.
        timeouts: of the socket.
        lm: the LM's name with the provider's prefix, for errors.
        limit: what it calls a call's limit of tokens.
    """

    def __init__(
        self, url: str, headers: dict[str, str], model: str, timeouts: Timeouts, lm: str, limit: str = "max_tokens"
    ) -> None:
        self.url = url
        self.headers = headers
        self._streaming = {**headers, "Accept": "text/event-stream"}
        self.model = model
        self.timeouts = timeouts
        self.lm = lm
        self.limit = limit

    def __repr__(self) -> str:
        return f"OpenAIEndpoint({self.url!r})"

    async def __call__(self, call: Call, sink: Sink) -> Completion:
        while True:
            # Noted for this request: another one may learn meanwhile that the endpoint refuses them.
            usage = call.stream and self.url not in _without_usage
            inputs = call.inputs if self.url not in _without_n else {**call.inputs, "n": None}
            # The body has no name here: a long prompt would be kept in memory as long as its reply streams.
            async with pool_for_running_loop().exchange(
                "POST",
                self.url,
                self._streaming if call.stream else self.headers,
                chat_body(self._wire(inputs), stream=call.stream, usage=usage, model=self.model),
                self.timeouts,
            ) as exchange:
                await exchange.headers_received()
                if exchange.status < 400:
                    if call.stream and "event-stream" in exchange.headers.get("content-type", "event-stream"):
                        return Completion(await _streamed(exchange, inputs.get("n") or 1, sink))
                    return Completion(_whole(await exchange.read(), sink))
                refusal = await exchange.read(_ERROR_BODY, truncate=True)
            if usage and refuses_stream_options(exchange.status, refusal):
                _without_usage.add(self.url)
            elif (inputs.get("n") or 1) > 1 and refuses_n(exchange.status, refusal):
                _without_n.add(self.url)
            else:
                raise http_error(exchange.status, exchange.headers, refusal, self.lm, now=time.time())

    def _wire(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments as this endpoint takes them; a pydantic class goes out as DSPy's strict schema of it."""
        inputs = with_named_limit(inputs, self.limit, self.lm)
        format_ = inputs.get("response_format")
        if not (isinstance(format_, type) and issubclass(format_, pydantic.BaseModel)):
            return inputs
        schema = {"name": format_.__name__, "schema": _strict_json_schema(format_.model_json_schema()), "strict": True}
        return {**inputs, "response_format": {"type": "json_schema", "json_schema": schema}}


async def _streamed(exchange: Exchange, n: int, sink: Sink) -> dict[str, Any]:
    """Push a stream's words from the socket's own callback; this task wakes when the sink is full, and at the end."""
    exchange.headers.clear()  # nobody asks for them any more, and the stream may last for hours
    module = native()
    parser = StreamParser(n=n, cut=None if module is None else module.cut)
    linger: asyncio.TimerHandle | None = None

    def received(data: bytes) -> None:
        nonlocal linger
        if not _push(parser.feed(data), sink):
            exchange.pause()
        if parser.done and linger is None:
            linger = asyncio.get_running_loop().call_later(_LINGER, exchange.abort)

    exchange.on_body = received
    if module is not None and n == 1 and (splicer := pool_for_running_loop().splicer()) is not None:
        exchange.wish(Splice(splicer, exchange, parser, partial(outlet_of, sink)))
    try:
        while not await exchange.wait():
            await sink.room()
            exchange.resume()
    except TransportError:
        if not parser.done:
            raise
    finally:
        if linger is not None:
            linger.cancel()
    _push(parser.finish(), sink)
    return parser.reply()


def _whole(body: bytes, sink: Sink) -> dict[str, Any]:
    reply = parse_reply(body)
    for choice in reply["choices"]:
        message = choice["message"]
        if type(message.get("content")) not in _AS_STREAMED or message.get("reasoning"):
            choice["message"] = _as_streamed(message)
    message = reply["choices"][0]["message"]
    if thought := message.get("reasoning_content"):
        sink.push(Reasoning(thought, "", 0))
    if text := message.get("content"):
        sink.push(TextDelta(text))
    return reply


def _as_streamed(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as a stream of it would be read: its content is text, and thoughts have one name."""
    thought = message.get("reasoning_content") or message.get("reasoning")
    choice = Choice(0)
    choice.take({"content": message.get("content"), "reasoning_content": thought}, [])
    return {**message, **choice.finished()["message"]}


def _push(deltas: Iterable[Delta], sink: Sink) -> bool:
    room = True
    for delta in deltas:
        if delta.index or delta.kind == "tool":
            room = sink.push(AT_WORK)
        elif delta.kind == "text":
            room = sink.push(TextDelta(delta.text))
        else:
            room = sink.push(Reasoning(delta.text, "", 0))
    return room
