"""One run as an iterator: the items of a stream, asynchronous or not."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import dspy

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
from dspy_live.programs.api.calls import value_of
from dspy_live.programs.api.event_loop import require_asyncio
from dspy_live.programs.api.items import PartialValue, StatusMessage, StreamItem, StreamToken
from dspy_live.programs.api.listeners import Wanted
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.channel import ChannelStatistics, Reader
from dspy_live.runtime.execution import background

R_co = TypeVar("R_co", covariant=True)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What of a run's events a stream yields."""

    wanted: Wanted | None
    final: bool
    events: bool


class Stream(Generic[R_co]):
    """One run as an async iterator; it starts with the first step and is closed with :meth:`aclose`.

    One that is abandoned stops the program as soon as it is garbage, which in CPython is at once.
    """

    def __init__(self, start: Callable[[], Reader], service: ProgramService, choice: Choice) -> None:
        self._start = start
        self._service = service
        self._choice = choice
        self._reader: Reader | None = None
        self._items: deque[StreamItem | R_co] = deque()
        self._spoke = False
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Stream[R_co]:
        return self

    async def __anext__(self) -> StreamItem | R_co:
        while not self._items:
            if not await self.more():
                raise StopAsyncIteration
        return self._items.popleft()

    if not TYPE_CHECKING:  # a type checker refuses these two by itself

        def __iter__(self) -> NoReturn:
            raise TypeError(
                "this stream is asynchronous: read it with 'async for', or make it with "
                "streamify(…, async_streaming=False) for an ordinary 'for'"
            )

        def __await__(self) -> NoReturn:
            raise TypeError(
                "a stream is not awaited: read it with 'async for item in stream', without 'await'; "
                "for the result alone use asyncify"
            )

    async def more(self) -> bool:
        """Wait for the next items and keep them ready; False at the end."""
        if self._ended:
            return False
        try:
            if self._reader is None:
                require_asyncio("streamify")
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

    def ready(self) -> deque[StreamItem | R_co]:
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


class SyncStream(Generic[R_co]):
    """The same as an ordinary iterator: the run lives on a loop of its own, in the background."""

    def __init__(self, stream: Stream[R_co]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[StreamItem | R_co]:
        return self

    def __next__(self) -> StreamItem | R_co:
        items = self._stream.ready()
        while not items:
            if not self._wait(self._stream.more()):
                raise StopIteration
        return items.popleft()

    def close(self) -> None:
        """Stop the run and wait for its end, for a moment at most."""
        self._wait(self._stream.aclose())

    def __enter__(self) -> SyncStream[R_co]:
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
