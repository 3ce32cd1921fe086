"""``streamify``: a DSPy program as a stream, in place of ``dspy.streamify``."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

from dspy_live.core.call import Buffer, Overflow
from dspy_live.core.service import Layer
from dspy_live.programs.api.calls import layers_of, new_call
from dspy_live.programs.api.listeners import checked_listeners, resolve
from dspy_live.programs.api.stream import Choice, Stream, SyncStream
from dspy_live.programs.run.program import ProgramService
from dspy_live.programs.run.status import StatusMessageProvider
from dspy_live.runtime.channel import Reader
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.mistakes import checked_layers, names_near_options
from dspy_live.runtime.runtime import Runtime

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class AsyncStreamer(Protocol[R_co]):
    """The function that :func:`streamify` returns: it takes what the program takes. ``layers`` are those around it."""

    layers: list[Layer]

    def __call__(self, *args: Any, **kwargs: Any) -> Stream[R_co]: ...


class SyncStreamer(Protocol[R_co]):
    """The same with ``async_streaming=False``: its streams are ordinary iterators."""

    layers: list[Layer]

    def __call__(self, *args: Any, **kwargs: Any) -> SyncStream[R_co]: ...


class StreamOptions(TypedDict, total=False):
    """The options of :func:`streamify` that go by name only."""

    execution: Execution
    timeout: float | None
    buffer: int | Buffer | None
    overflow: Overflow | None
    events: bool
    runtime: Runtime | None
    layers: Sequence[Layer] | None


@overload
def streamify(
    program: Callable[..., Awaitable[R]],
    status_message_provider: StatusMessageProvider | None = None,
    stream_listeners: Sequence[Any] | None = None,
    include_final_prediction_in_output_stream: bool = True,
    is_async_program: bool = False,
    async_streaming: Literal[True] = True,
    **options: Unpack[StreamOptions],
) -> AsyncStreamer[R]: ...
@overload
def streamify(
    program: Callable[..., R],
    status_message_provider: StatusMessageProvider | None = None,
    stream_listeners: Sequence[Any] | None = None,
    include_final_prediction_in_output_stream: bool = True,
    is_async_program: bool = False,
    async_streaming: Literal[True] = True,
    **options: Unpack[StreamOptions],
) -> AsyncStreamer[R]: ...
@overload
def streamify(
    program: Callable[..., Awaitable[R]],
    status_message_provider: StatusMessageProvider | None = None,
    stream_listeners: Sequence[Any] | None = None,
    include_final_prediction_in_output_stream: bool = True,
    is_async_program: bool = False,
    *,
    async_streaming: Literal[False],
    **options: Unpack[StreamOptions],
) -> SyncStreamer[R]: ...
@overload
def streamify(
    program: Callable[..., R],
    status_message_provider: StatusMessageProvider | None = None,
    stream_listeners: Sequence[Any] | None = None,
    include_final_prediction_in_output_stream: bool = True,
    is_async_program: bool = False,
    *,
    async_streaming: Literal[False],
    **options: Unpack[StreamOptions],
) -> SyncStreamer[R]: ...
@overload
def streamify(
    program: Callable[..., Any],
    status_message_provider: StatusMessageProvider | None = None,
    stream_listeners: Sequence[Any] | None = None,
    include_final_prediction_in_output_stream: bool = True,
    is_async_program: bool = False,
    *,
    async_streaming: bool,
    **options: Unpack[StreamOptions],
) -> AsyncStreamer[Any] | SyncStreamer[Any]: ...
@names_near_options
def streamify(
    program: Callable[..., Any],
    status_message_provider: StatusMessageProvider | None = None,
    stream_listeners: Sequence[Any] | None = None,
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
) -> AsyncStreamer[Any] | SyncStreamer[Any]:
    """Return a function that takes what ``program`` takes and returns a stream of what it says.

    The stream yields ``StreamItem``: :class:`StreamToken` for text, :class:`PartialValue` for typed fields,
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

    Raises ``TypeError`` for what is no listener, no layer or no option, and ``ValueError`` when a listener matches
    nothing, or is ambiguous. A stream's first step raises ``RuntimeError`` where no asyncio loop runs. Leaving the
    ``for``, closing the stream, cancelling the task or the timeout closes the LM's connection at once.
    """
    program = getattr(program, "program", program) if asyncio.iscoroutinefunction(program) else program
    way: Execution = "native" if is_async_program else execution
    service = ProgramService(program, execution=way, runtime=runtime, status=status_message_provider)
    service.reports.default_to(StatusMessageProvider())
    listeners = checked_listeners(stream_listeners)
    wanted = resolve(program, service.names, listeners) if listeners else None
    choice = Choice(wanted, include_final_prediction_in_output_stream, events)
    room = _buffer(service.runtime.buffer, buffer, overflow)
    given = None if layers is None else checked_layers("layers", layers)
    listed = layers_of(service, timeout, given)
    layered = service.layered(listed)

    def async_streamer(*args: Any, **kwargs: Any) -> Stream[Any]:
        def start() -> Reader:
            return Reader(layered, new_call(service, args, kwargs), room)

        return Stream(start, service, choice)

    def sync_streamer(*args: Any, **kwargs: Any) -> SyncStream[Any]:
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
