"""Every provider that is not on the fast path, through DSPy's own engines, streamed where they stream."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Event, Reasoning, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.programs.internals import (
    CallResult,
    StreamAccumulator,
    _adapter_calls,
    _engine,
    _result,
    achecked_stream,
    aclosing_stream,
    combine,
    error_boundary,
    settings,
)
from dspy_live.programs.lm.openai_endpoint import AT_WORK
from dspy_live.programs.run.run import current_run
from dspy_live.runtime.execution.execution import to_thread

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM
    from dspy_live.programs.lm.seam.lm_call import LMCall


class DspyEndpoint:
    """One prepared call on the engine that DSPy would choose: lm15's, LiteLLM, or the user's own.

    Its ``Completion`` carries DSPy's ``CallResult``. One attempt: retries are a layer's. Cancelling a call ends the
    engine's stream; an engine that is synchronous only is waited for, since a thread can't be stopped.
    """

    def __init__(self, lm: LM, lm_call: LMCall) -> None:
        self.lm = lm
        self.prepared = lm_call.theirs

    def __repr__(self) -> str:
        return f"DspyEndpoint({self.lm.model!r})"

    async def __call__(self, call: Call, sink: Sink) -> Completion:
        plain = self.lm.as_dspy()
        asynchronous = _has_async(plain)
        with error_boundary(plain.model, unexpected=True):
            backend, request, provider = _engine(plain, self.prepared, asynchronous)
            if request is None:
                return Completion(await self._legacy(plain, backend, call.stream and asynchronous, sink))
            results = []
            for _ in range(self.prepared.n):
                if not asynchronous:
                    response = await _in_thread(lambda: backend.complete(request))
                elif call.stream and hasattr(backend, "stream"):
                    response = await _streamed(backend, request, provider, sink)
                else:
                    response = await backend.complete(request)
                    _push_parts(response.message, sink)
                results.append(_result(plain, response, self.prepared, provider, request, estimate=False))
                sink = _OtherCompletion(sink)
        return Completion(results[0] if len(results) == 1 else combine(results, model_type=plain.model_type))

    async def _legacy(self, plain: Any, backend: Any, stream: bool, sink: Sink) -> CallResult:
        prepared = self.prepared
        legacy = copy.deepcopy(prepared.legacy)
        arguments = {"prompt": prepared.prompt, "messages": prepared.messages, "call_kwargs": prepared.kwargs}
        chunks = _ChunkStream(sink)
        with _send_stream(chunks if stream else None):
            if _has_async(plain):
                result = await backend.complete_legacy(plain, legacy, **arguments)
            else:
                result = await _in_thread(lambda: backend.complete_legacy(plain, legacy, **arguments))
        if not chunks.spoke and result.outputs:
            output = result.outputs[0]
            text = output.get("text") if isinstance(output, dict) else output
            if text:
                sink.push(TextDelta(text))
        return result


async def _in_thread(fn: Callable[[], Any]) -> Any:
    """Make a call that can't be stopped, and stay until it has ended: its slots are held for it, and so is its run."""
    run, ended = current_run(), Future[None]()

    def work() -> Any:
        if not ended.set_running_or_notify_cancel():
            return None
        try:
            if run is not None:
                run.check()
            return fn()
        finally:
            ended.set_result(None)

    # A task that is cancelled while it waits for a free thread has asked nothing.
    async with anyio.to_thread.current_default_thread_limiter():
        if run is not None:
            run.works.add(ended)
            ended.add_done_callback(run.works.discard)
        try:
            return await to_thread(work, anyio.CapacityLimiter(1))
        finally:
            ended.cancel()  # where no thread has begun, as when the loop is shut down; without effect otherwise


class _OtherCompletion:
    """The sink of a completion after the first: it is told on that the LM is at work, and no word of it."""

    __slots__ = ("_sink", "room")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.room = sink.room

    def push(self, event: Event) -> bool:
        return self._sink.push(AT_WORK)


class _ChunkStream:
    """Stands in for ``send_stream`` while DSPy's compatibility engine runs: its chunks go to our sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.spoke = False

    async def send(self, chunk: Any) -> None:
        """Take one provider-shaped chunk, and wait while the reader is slow."""
        try:
            delta = chunk.choices[0].delta
        except (AttributeError, IndexError, TypeError):
            return
        room = True
        if getattr(delta, "tool_calls", None):
            room = self._sink.push(AT_WORK)
        if thought := getattr(delta, "reasoning_content", None):
            self.spoke = True
            room = self._sink.push(Reasoning(thought, "", 0))
        if text := getattr(delta, "content", None):
            self.spoke = True
            room = self._sink.push(TextDelta(text))
        if not room:
            await self._sink.room()


@contextmanager
def _send_stream(stream: _ChunkStream | None) -> Iterator[None]:
    """Set ``send_stream`` for the engine alone; the adapters' scopes must not see it, or they would not fall back."""
    token = _adapter_calls.set(())
    try:
        with settings.context(send_stream=stream, caller_predict=None):
            yield
    finally:
        _adapter_calls.reset(token)


async def _streamed(backend: Any, request: Any, provider: Any, sink: Sink) -> Any:
    accumulator = StreamAccumulator(request)
    response = None
    events = achecked_stream(backend.stream(request), provider=provider)
    async with aclosing_stream(events):
        async for event in events:
            accumulator.push(event)
            if event.type == "end":
                response = accumulator.response()
            elif event.type == "delta" and not _push_part(event.delta, sink):
                await sink.room()
    return response if response is not None else accumulator.response()


def _push_parts(message: Any, sink: Sink) -> None:
    for part in message.parts:
        _push_part(part, sink)


def _push_part(part: Any, sink: Sink) -> bool:
    if part.type == "text":
        return sink.push(TextDelta(part.text))
    if part.type == "thinking" and part.text:
        return sink.push(Reasoning(part.text, "", 0))
    return sink.push(AT_WORK)


def _has_async(plain: Any) -> bool:
    """False for a custom engine object without an asynchronous counterpart."""
    return isinstance(plain._engine_spec, str) or plain._async_engine_spec is not None
