"""Every provider that is not on the fast path, through DSPy's own engines, streamed where they stream."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from dspy._vendor.lm15.result import StreamAccumulator
from dspy.clients.call_context import _adapter_calls
from dspy.clients.engines.lifecycle import aclosing_stream
from dspy.clients.engines.stream_guard import achecked_stream
from dspy.clients.execution import _engine, _result

from dspy_live.core.call import Call
from dspy_live.core.sink import Sink, alive
from dspy_live.programs.internals import CallResult, PreparedCall, combine, error_boundary, settings
from dspy_live.programs.lm.timely import Aside, until_room
from dspy_live.programs.run.run import current_run
from dspy_live.runtime.channel.reading import Readable
from dspy_live.runtime.execution.execution import to_thread

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM


class DspyEndpoint:
    """One prepared call on the engine that DSPy would choose: lm15's, LiteLLM, or the user's own.

    Its ``Completion`` carries DSPy's ``CallResult``. One attempt: retries are the engine's.
    """

    def __init__(self, lm: LM, prepared: PreparedCall) -> None:
        self.lm = lm
        self.prepared = prepared

    def open(self, call: Call) -> _Opened:
        """Prepare the call; cancellation inside ends the engine's stream."""
        return _Opened(self, call)


class _Opened(Readable):
    def __init__(self, endpoint: DspyEndpoint, call: Call) -> None:
        self._lm = endpoint.lm
        self._prepared = endpoint.prepared
        self._call = call
        self._reading = None

    async def __aenter__(self) -> _Opened:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reading is not None:
            await self._reading.aclose()

    async def attach(self, sink: Sink) -> CallResult:
        """Make the call, hand the words of the first completion to ``sink``, and return DSPy's result."""
        plain = self._lm.as_dspy()
        prepared = self._prepared
        asynchronous = _has_async(plain)
        with error_boundary(plain.model, unexpected=True):
            backend, request, provider = _engine(plain, prepared, asynchronous)
            if request is None:
                return await self._legacy(plain, backend, sink, asynchronous)
            first = await self._one(plain, backend, request, provider, sink, asynchronous)
            aside = Aside(sink) if hasattr(sink, "alive") else None
            others = [
                await self._one(plain, backend, request, provider, aside, asynchronous) for _ in range(prepared.n - 1)
            ]
        return first if not others else combine([first, *others], model_type=plain.model_type)

    async def _one(
        self, plain: Any, backend: Any, request: Any, provider: Any, sink: Sink | None, asynchronous: bool
    ) -> CallResult:
        if not asynchronous:
            response = await _in_thread(lambda: backend.complete(request))
        elif sink is not None and self._call.stream and hasattr(backend, "stream"):
            response = await _streamed(backend, request, provider, sink)
        else:
            response = await backend.complete(request)
            if sink is not None:
                _say(sink, response.message)
        return _result(plain, response, self._prepared, provider, request, estimate=False)

    async def _legacy(self, plain: Any, backend: Any, sink: Sink, asynchronous: bool) -> CallResult:
        prepared = self._prepared
        legacy = copy.deepcopy(prepared.legacy)
        arguments = {"prompt": prepared.prompt, "messages": prepared.messages, "call_kwargs": prepared.kwargs}
        private = _PrivateStream(sink)
        streams = self._call.stream and asynchronous
        with _privately(private if streams else None):
            if asynchronous:
                result = await backend.complete_legacy(plain, legacy, **arguments)
            else:
                result = await _in_thread(lambda: backend.complete_legacy(plain, legacy, **arguments))
        if not private.said and result.outputs:
            output = result.outputs[0]
            text = output.get("text") if isinstance(output, dict) else output
            if text:
                sink.text(text)
        return result


async def _in_thread(fn: Callable[[], Any]) -> Any:
    """Make a call that can't be stopped, and stay until it has ended: its slots are held for it, and so is its run."""
    run, ended = current_run(), Future[None]()

    def work() -> Any:
        if not ended.set_running_or_notify_cancel():
            return None
        try:
            if run is not None:
                run.scope.check()
            return fn()
        finally:
            ended.set_result(None)

    # Whoever is cancelled while it waits for a thread has asked nothing.
    async with anyio.to_thread.current_default_thread_limiter():
        if run is not None:
            run.works.add(ended)
            ended.add_done_callback(run.works.discard)
        try:
            return await to_thread(work, anyio.CapacityLimiter(1))
        finally:
            ended.cancel()  # where no thread has begun, as when the loop is shut down; without effect otherwise


class _PrivateStream:
    """What DSPy's compatibility engine takes for ``send_stream``: its chunks go to our sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.said = False

    async def send(self, chunk: Any) -> None:
        """Take one provider-shaped chunk, and wait while the reader is slow."""
        try:
            delta = chunk.choices[0].delta
        except (AttributeError, IndexError, TypeError):
            return
        room = True
        if getattr(delta, "tool_calls", None):
            alive(self._sink)
        if thought := getattr(delta, "reasoning_content", None):
            self.said = True
            room = self._sink.reasoning(thought)
        if text := getattr(delta, "content", None):
            self.said = True
            room = self._sink.text(text)
        if not room:
            await until_room(self._sink)


@contextmanager
def _privately(stream: _PrivateStream | None) -> Iterator[None]:
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
            elif event.type == "delta":
                part, room = event.delta, True
                if part.type == "text":
                    room = sink.text(part.text)
                elif part.type == "thinking":
                    room = sink.reasoning(part.text)
                else:
                    alive(sink)
                if not room:
                    await until_room(sink)
    return response if response is not None else accumulator.response()


def _say(sink: Sink, message: Any) -> None:
    for part in message.parts:
        if part.type == "thinking" and part.text:
            sink.reasoning(part.text)
        elif part.type == "text" and part.text:
            sink.text(part.text)


def _has_async(plain: Any) -> bool:
    """False for a custom engine object without an asynchronous counterpart."""
    return isinstance(plain._engine_spec, str) or plain._async_engine_spec is not None
