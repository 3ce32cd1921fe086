"""The simulated LM as a Service: what an LM asks in place of the network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Reasoning, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.sansio.openai import Delta, StreamParser
from dspy_live.simulator.inprocess import InProcessLM


class SimulatedEndpoint:
    """Answers LM calls in the process: ``LM("openai/simulated", endpoint=SimulatedEndpoint())``.

    Args:
        lm: what makes the answers and sets the pace; by default without any wait.
    """

    simulated = True

    def __init__(self, lm: InProcessLM | None = None) -> None:
        self.lm = lm or InProcessLM()

    async def __call__(self, call: Call, sink: Sink) -> Completion:
        """Answer one request; its text is pushed where the call asks for a stream."""
        body = _body(call.inputs)
        return Completion(await (self._stream(body, sink) if call.stream else self.lm.complete(body)))

    async def _stream(self, body: Mapping[str, Any], sink: Sink) -> dict[str, Any]:
        parser = StreamParser(n=body.get("n") or 1)
        frames = self.lm.frames({**body, "stream": True, "stream_options": {"include_usage": True}})
        async with aclosing(frames):
            async for frame in frames:
                for delta in parser.feed(frame):
                    if not sink.push(_event(delta)):
                        await sink.room()
        parser.finish()
        return parser.reply()


def _event(delta: Delta) -> Event:
    if delta.index or delta.kind == "tool":
        return TextDelta("")
    return TextDelta(delta.text) if delta.kind == "text" else Reasoning(delta.text, "", 0)


def _body(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request as it would stand on the wire: a class as ``response_format`` becomes its schema."""
    body = {name: value for name, value in inputs.items() if value is not None}
    wanted = body.get("response_format")
    schema = getattr(wanted, "model_json_schema", None)
    if isinstance(wanted, type) and callable(schema):
        named = {"name": wanted.__name__, "schema": schema()}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body
