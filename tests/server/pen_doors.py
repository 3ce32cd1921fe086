"""A run with a sink of its own, which keeps what it is told, and its LM calls: with pens or with events alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import dspy

from dspy_live.core.call import Call, Origin
from dspy_live.core.errors import LiveError
from dspy_live.core.events import Event, Started, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.programs.fields.field_stream import FieldStream
from dspy_live.programs.fields.formats import reading_of
from dspy_live.programs.run.run import Run
from dspy_live.runtime.runtime import default_runtime
from dspy_live.server.encoders.events import frames, sse
from dspy_live.server.encoders.sinks import FrameSink, StreamSink, WaitForRoom
from dspy_live.server.runs.totals import RunTotals

SIGNATURE = dspy.Signature("question -> reason: str, count: int, answer: str, sources: list[str]")


class Wire:
    """Takes frames, and has no room for some. Its ``write`` is another one after the first, as an event stream's is."""

    def __init__(self, full_at: frozenset[int] = frozenset()) -> None:
        self.frames: list[bytes] = []
        self.write: Callable[[bytes], bool] = self._first
        self.room: WaitForRoom = self._room
        self._full_at = full_at

    def _first(self, frame: bytes) -> bool:
        assert not self.frames, "a pen writes as it did before the first frame"
        self.write = self._further
        return self._further(frame)

    def _further(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return len(self.frames) not in self._full_at

    def write_soon(self, frame: bytes) -> bool:
        return self.write(frame)

    async def _room(self) -> None:
        return None


class Events:
    """The sink of a door that reads events. It has no pens."""

    def __init__(self, full_at: frozenset[int] = frozenset()) -> None:
        self.events: list[Event] = []
        self._full_at = full_at

    def push(self, event: Event) -> bool:
        self.events.append(event)
        return len(self.events) not in self._full_at

    async def room(self) -> None:
        return None


class WithoutPens:
    """Hands on to another sink what it is pushed, and all else that it is asked for."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def push(self, event: Event) -> bool:
        return bool(self._sink.push(event))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


class Pushing(FieldStream):
    """Pushes an event for every piece that the parser finds."""

    def push(self, event: Event) -> bool:
        if not isinstance(event, TextDelta) or self._parser is None:
            return super().push(event)
        return [True, *(self._emit(piece) for piece in self._parser.feed(event.text))][-1]


class Door:
    """A run with a sink of its own, and its LM calls."""

    def __init__(self, kind: str, full_at: frozenset[int], pens: bool) -> None:
        self.totals = RunTotals()
        self.wire = Wire(full_at)
        self.events = Events(full_at)
        self.failures: list[BaseException] = []
        self.encoder = sse("run", self.totals) if kind == "sse" else frames("50%b", "run", self.totals)
        sink: Sink = self.events
        if kind == "sse":
            sink = StreamSink(self.encoder, self.wire, self.failures.append)
        elif kind == "socket":
            sink = FrameSink(self.encoder, self.wire._further, self.wire.room, self.failures.append)
        names: Any = None
        self.run = Run(default_runtime(), Call({}), "P", names, sink)
        self.run.push(Started("run", "P"))
        self._pens = pens
        self.seen: list[object] = []

    def lm_call(self, number: int, adapter: Any) -> FieldStream:
        origin = Origin("run", "P", f"p%{number}", (), number)
        run: Any = WithoutPens(self.run)
        return (
            FieldStream(self.run, origin, reading_of(adapter, SIGNATURE))
            if self._pens
            else Pushing(run, origin, reading_of(adapter, SIGNATURE))
        )

    def do(self, step: Callable[..., object], *arguments: Any) -> None:
        result: object
        try:
            result = step(*arguments)
        except LiveError as exc:
            result = repr(exc)
        timed = self.run.first is not None, self.totals.first is not None
        self.seen.append((result, self.run.full, timed, self.encoder.seq, self.totals.tokens))

    async def close(self) -> tuple[Any, ...]:
        await asyncio.sleep(0)
        await self.run.close()
        return self.seen, self.wire.frames, self.events.events, self.failures
