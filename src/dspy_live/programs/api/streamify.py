"""``streamify``: a DSPy program as a stream, in place of ``dspy.streamify``."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import dspy

from dspy_live.core.call import Buffer, Overflow
from dspy_live.core.events import (
    Custom,
    Event,
    Partial,
    Reasoning,
    Restart,
    Status,
    TextDelta,
    Token,
    Tool,
    Usage,
)
from dspy_live.core.service import Layer
from dspy_live.programs.api.calls import layers_of, new_call, value_of
from dspy_live.programs.api.items import PartialValue, StatusMessage, StreamToken
from dspy_live.programs.api.listeners import Wanted, resolve
from dspy_live.programs.run.program import ProgramService
from dspy_live.programs.run.status import StatusMessageProvider, StatusReports
from dspy_live.runtime.channel import ChannelStatistics, Reader
from dspy_live.runtime.execution import background
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What of a run's events a stream yields."""

    wanted: Wanted | None
    final: bool
    events: bool


def streamify(
    program: Any,
    status_message_provider: StatusMessageProvider | None = None,
    stream_listeners: list[Any] | None = None,
    include_final_prediction_in_output_stream: bool = True,
    is_async_program: bool = False,
    async_streaming: bool = True,
    *,
    execution: Execution = "auto",
    timeout: float | None = None,
    buffer: int | Buffer | None = None,
    overflow: Overflow | None = None,
    events: bool = False,
    runtime: Runtime | None = None,
    layers: Sequence[Layer] | None = None,
) -> Callable[..., Any]:
    """Return a function that takes what ``program`` takes and returns a stream of what it says.

    The stream yields :class:`StreamToken` for text, :class:`PartialValue` for typed fields,
    ``StatusMessage``, ``Restart`` when an LM call's tokens are void, what the program sends with
    ``emit``, and at the end the program's own result. With ``events=True`` also reasoning, tool calls and usage. It
    ends when the program ends, and raises the program's own exception.

    Args:
        program: a ``dspy.Module``, a callable, or what :func:`asyncify` returned.
        status_message_provider: says what is told while the program runs.
        stream_listeners: the fields to stream; without any, every text field of every predictor.
        include_final_prediction_in_output_stream: false leaves the result out, unless nothing else was streamed.
        is_async_program: true runs the program's ``acall``; the same as ``execution="native"``.
        async_streaming: false returns an ordinary generator instead of an async one; it may be used in
            a notebook with a running loop too.
        execution: as for :func:`asyncify`.
        timeout: seconds for each run, from its first step.
        buffer: how many tokens may wait for a slow reader (64), or a whole :class:`Buffer`.
        overflow: ``"block"`` (the LM's socket is not read until there is room), ``"coalesce"`` or ``"drop_oldest"``.
        events: yield all events.
        runtime: layers and account; the process's own by default.
        layers: as for :func:`asyncify`.

    Raises ``ValueError`` when a listener matches nothing, or is ambiguous. Leaving the ``for``, closing the
    stream, cancelling the task or the timeout closes the LM's connection at once.
    """
    program = getattr(program, "program", program) if asyncio.iscoroutinefunction(program) else program
    way: Execution = "native" if is_async_program else execution
    service = ProgramService(program, execution=way, runtime=runtime, status=status_message_provider)
    if status_message_provider is None and service.reports.has_tools:
        service.reports = StatusReports(program, StatusMessageProvider())
    listeners = list(stream_listeners or ())
    wanted = resolve(program, service.names, listeners) if listeners else None
    choice = _Choice(wanted, include_final_prediction_in_output_stream, events)
    room = _buffer(service.runtime.buffer, buffer, overflow)
    listed = layers_of(service.runtime, timeout, layers)
    layered = service.layered(listed)

    def async_streamer(*args: Any, **kwargs: Any) -> Stream:
        def start() -> Reader:
            return Reader(layered, new_call(service, args, kwargs), room)

        return Stream(start, service, choice)

    def sync_streamer(*args: Any, **kwargs: Any) -> SyncStream:
        return SyncStream(async_streamer(*args, **kwargs))

    streamer: Any = async_streamer if async_streaming else sync_streamer
    streamer.__name__ = streamer.__qualname__ = f"streamified_{service.name}"
    streamer.layers = listed
    return streamer  # type: ignore[no-any-return]


def _buffer(default: Buffer, buffer: int | Buffer | None, overflow: Overflow | None) -> Buffer:
    if isinstance(buffer, Buffer):
        return buffer if overflow is None else dataclasses.replace(buffer, overflow=overflow)
    changes: dict[str, Any] = {}
    if buffer is not None:
        changes["size"] = buffer
        changes["max_size"] = None
    if overflow is not None:
        changes["overflow"] = overflow
    return dataclasses.replace(default, **changes)


class Stream:
    """One run as an async iterator; it starts with the first step and is closed with :meth:`aclose`.

    One that is abandoned stops the program as soon as it is garbage, which in CPython is at once.
    """

    def __init__(self, start: Callable[[], Reader], service: ProgramService, choice: _Choice) -> None:
        self._start = start
        self._service = service
        self._choice = choice
        self._reader: Reader | None = None
        self._items: deque[Any] = deque()
        self._spoke = False
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            if not await self.more():
                raise StopAsyncIteration
        return self._items.popleft()

    async def more(self) -> bool:
        """Wait for the next items and keep them ready; False at the end."""
        if self._ended:
            return False
        try:
            if self._reader is None:
                self._loop = asyncio.get_running_loop()
                self._reader = self._start()
            batch = await self._reader.receive_many()
        except BaseException:
            await self.aclose()
            raise
        for event in batch:
            self._take(event)
        if batch:
            return True
        self._ended = True
        self._take_result(value_of(self._service, self._reader.result))
        return bool(self._items)

    def ready(self) -> deque[Any]:
        """Return the items that are there; the caller takes them out."""
        return self._items

    async def aclose(self) -> None:
        """Stop the run and wait for its end, for a moment at most."""
        ended, self._ended = self._ended, True
        if self._reader is not None and not ended:
            await self._reader.aclose()

    def statistics(self) -> ChannelStatistics | None:
        """Return the statistics of the run's channel, the last ones after its end, ``None`` before the first step."""
        return self._reader.statistics() if self._reader is not None else None

    def __del__(self) -> None:
        reader, loop = self._reader, self._loop
        if reader is None or loop is None or self._ended or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(reader.abandon)
        except RuntimeError:
            pass  # the loop is closing, and its tasks with it

    def _take(self, event: Event) -> None:
        choice, put = self._choice, self._items.append
        match event:
            case Token(text, field, predictor, lm_call, last):
                if choice.wanted is None or (predictor, field) in choice.wanted:
                    self._spoke = True
                    put(StreamToken(text, predictor, field, lm_call, last))
            case Partial(value, field, predictor, lm_call, final):
                if choice.wanted is None or (predictor, field) in choice.wanted:
                    self._spoke = True
                    put(PartialValue(value, predictor, field, lm_call, final))
            case Status(message):
                put(StatusMessage(message))
            case Restart(predictor):
                if choice.wanted is None or any(path == predictor for path, _ in choice.wanted):
                    put(event)
            case Custom():
                put(event)
            case Reasoning() | Tool() | Usage() | TextDelta():
                if choice.events:
                    put(event)
            case _:
                if choice.events:
                    put(event)

    def _take_result(self, value: Any) -> None:
        choice = self._choice
        if choice.final or choice.wanted is None or not self._spoke or not isinstance(value, dspy.Prediction):
            self._items.append(value)


class SyncStream:
    """The same as an ordinary iterator: the run lives on a loop of its own, in the background."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        items = self._stream.ready()
        while not items:
            if not self._wait(self._stream.more()):
                raise StopIteration
        return items.popleft()

    def close(self) -> None:
        """Stop the run and wait for its end, for a moment at most."""
        self._wait(self._stream.aclose())

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @staticmethod
    def _wait(step: Coroutine[Any, Any, Any]) -> Any:
        future = background.runs.submit(step)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
