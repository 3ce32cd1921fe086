"""The simulated LM as a Service: what an LM asks in place of the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Reasoning, TextDelta
from dspy_live.runtime.channel.channel import Channel
from dspy_live.runtime.channel.reading import Reading
from dspy_live.sansio.openai import StreamParser
from dspy_live.simulator.inprocess import InProcessLM


class SimulatedEndpoint:
    """Answers LM calls in the process: ``LM("openai/simulated", endpoint=SimulatedEndpoint())``.

    Args:
        lm: what makes the answers and sets the pace; by default without any wait.
    """

    simulated = True

    def __init__(self, lm: InProcessLM | None = None) -> None:
        self.lm = lm or InProcessLM()

    def open(self, call: Call) -> _Reply:
        """Begin one reply: text where the call asks for a stream, and one ``Completion``. Leaving ends it."""
        return _Reply(self.lm, call)


class _Reply:
    def __init__(self, lm: InProcessLM, call: Call) -> None:
        self._lm = lm
        self._call = call
        self._reading: Reading | None = None

    async def __aenter__(self) -> Reading:
        body = _body(self._call.inputs)
        make = _streamed if self._call.stream else _whole

        async def feed(channel: Channel) -> None:
            async with aclosing(make(self._lm, body)) as events:
                async for event in events:
                    if not channel.push(event):
                        await channel.room()

        self._reading = Reading(feed, self._call.buffer)
        return self._reading

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reading is not None:
            await self._reading.aclose()


async def _streamed(lm: InProcessLM, body: Mapping[str, Any]) -> AsyncGenerator[Event, None]:
    wire = StreamParser(n=body.get("n") or 1)
    frames = lm.frames({**body, "stream": True, "stream_options": {"include_usage": True}})
    async for frame in frames:
        for delta in wire.feed(frame):
            if delta.index == 0 and delta.kind == "text":
                yield TextDelta(delta.text)
            elif delta.index == 0 and delta.kind == "reasoning":
                yield Reasoning(delta.text, "", 0)
    wire.finish()
    yield Completion(wire.reply())


async def _whole(lm: InProcessLM, body: Mapping[str, Any]) -> AsyncGenerator[Event, None]:
    await asyncio.sleep(0)
    yield Completion(await lm.complete(body))


def _body(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request as it would stand on the wire: a class as ``response_format`` becomes its schema."""
    body = {name: value for name, value in inputs.items() if value is not None}
    wanted = body.get("response_format")
    schema = getattr(wanted, "model_json_schema", None)
    if isinstance(wanted, type) and callable(schema):
        named = {"name": wanted.__name__, "schema": schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body
