"""Our engine as the objects that ``dspy.LM(model, engine=…, async_engine=…)`` takes.

The contract is DSPy's (``dspy.clients.engines.base``): one typed request in, one typed response out, one attempt. DSPy
repeats a failed one, keeps the cache and the history, and calls the callbacks. In a run of ours such an LM is run as an
LM of ours, with our cache and retries: see :func:`~dspy_live.programs.lm.lm.adopt`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from dspy.lm15 import Request, Response, StreamDeltaEvent, StreamEndEvent, StreamStartEvent, TextDelta, ThinkingDelta

from dspy_live.core import events
from dspy_live.core.call import Call, Origin
from dspy_live.core.events import Completion, Result
from dspy_live.core.sink import Sink
from dspy_live.programs.fields.origin import origin_of
from dspy_live.programs.internals import LM_CLASS_STATE_KEY, overrides, prepare, response_to_events
from dspy_live.programs.lm import engine
from dspy_live.programs.lm.seam.lm_call import LMCall, lm_call_of
from dspy_live.programs.run.run import Run, current_run
from dspy_live.runtime.channel import read
from dspy_live.runtime.execution import bridge

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM


class _EngineObject:
    def __init__(self, lm: LM) -> None:
        self.live_lm = lm

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.live_lm.model!r})"

    def dump_state(self) -> dict[str, Any]:
        """Return the settings of the LM, for a program that is saved; keys and our own options stay out of it."""
        state = self.live_lm.dump_state()
        return {name: value for name, value in state.items() if name != LM_CLASS_STATE_KEY}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> Self:
        """Return an engine object with the settings of :meth:`dump_state`."""
        from dspy_live.programs.lm.lm import LM

        return cls(LM(**state))

    def _call(self, request: Request) -> LMCall:
        """Return one attempt at this request. Raises ``ValueError`` where it names another model."""
        prepared = prepare(self.live_lm, request, None, {"cache": False})
        return lm_call_of(self.live_lm, prepared, once=True)

    async def _answer(self, call: LMCall, sink: Sink | None = None) -> Response:
        run = current_run()
        result = await engine.answer_once(self.live_lm, call, run, _origin(run), sink)
        response: Response = result.typed(call.request, self.live_lm.model_type)
        return response


def _origin(run: Run | None) -> Origin:
    if run is None:
        return origin_of(None, None)[0]
    modules = overrides().get("caller_modules")
    predictor, around = run.names.of_callers(modules) if modules else ("lm", ())
    return Origin(run.id, run.program, predictor, around, next(run.numbers))


def _delta_of(event: events.Event) -> TextDelta | ThinkingDelta | None:
    if isinstance(event, events.TextDelta) and event.text:
        return TextDelta(text=event.text, part_index=1)
    if isinstance(event, events.Reasoning) and event.text:
        return ThinkingDelta(text=event.text, part_index=0)
    return None


def _after_words(event: StreamDeltaEvent) -> StreamDeltaEvent:
    """Return a part of the reply with a number behind those of the words that were said."""
    index = event.delta.part_index
    return event if index is None else replace(event, delta=replace(event.delta, part_index=index + 2))


class Engine(_EngineObject):
    """The engine of ``lm`` for synchronous calls; each takes the loop that ``lm(…)`` would take.

    Args:
        lm: carries the settings of the client (key, address, timeouts) and our own options. Its model must be the
            ``dspy.LM``'s; its cache and its ``num_retries`` are not used.
    """

    def complete(self, request: Request) -> Response:
        """Ask the LM once. Raises DSPy's ``LMError``s, and those of our layers."""
        call = self._call(request)
        return bridge.wait_for(lambda: self._answer(call), current_run())

    def stream(self, request: Request) -> Iterator[Any]:
        """Ask the LM once, and yield what :meth:`AsyncEngine.stream` yields. Closing it leaves the LM call."""
        events, run = AsyncEngine(self.live_lm).stream(request), current_run()

        async def following() -> Any:
            return await anext(events, None)

        async def left() -> None:
            await events.aclose()

        try:
            while (event := bridge.wait_for(following, run)) is not None:
                yield event
        finally:
            bridge.wait_for(left, run)

    def close(self) -> None:
        """Nothing is held: connections belong to the loop."""


class AsyncEngine(_EngineObject):
    """The engine of ``lm`` for calls that are awaited; the arguments are those of :class:`Engine`.

    Cancelling a call closes the connection to the LM at once.
    """

    async def complete(self, request: Request) -> Response:
        """Ask the LM once. Raises DSPy's ``LMError``s, and those of our layers."""
        return await self._answer(self._call(request))

    async def stream(self, request: Request) -> AsyncGenerator[Any, None]:
        """Ask the LM once, and yield the events of ``dspy.lm15`` as the words come.

        Text and thoughts come as they are said, everything else at the reply's end. Closing it leaves the LM call.
        """
        lm_call, lm = self._call(request), self.live_lm

        async def service(call: Call, sink: Sink) -> Result:
            return Completion(await self._answer(lm_call, sink))

        yield StreamStartEvent(model=lm.model)
        said = False
        async with read(service, Call(lm_call.inputs, model=lm.model, stream=True)) as reader:
            async for event in reader:
                delta = _delta_of(event)
                if delta is not None:
                    said = True
                    yield StreamDeltaEvent(delta=delta)
        reply = reader.result
        assert isinstance(reply, Completion)
        response: Response = reply.response
        for event in response_to_events(response):
            if isinstance(event, StreamDeltaEvent) and not (said and event.delta.type in ("text", "thinking")):
                yield _after_words(event) if said else event
        yield StreamEndEvent(finish_reason=response.finish_reason, usage=response.usage)

    async def aclose(self) -> None:
        """Nothing is held: connections belong to the loop."""


def engine_objects(lm: LM) -> dict[str, Any]:
    """Return the keyword arguments for ``dspy.LM`` that make it ask by our engine, with the settings of ``lm``."""
    return {"engine": Engine(lm), "async_engine": AsyncEngine(lm)}


def engine_lm_of(lm: Any) -> LM | None:
    """Return the LM whose engine ``lm`` asks by, for a ``dspy.LM`` that was given our engine objects; else ``None``."""
    engine_object = getattr(lm, "_engine_spec", None)
    return engine_object.live_lm if isinstance(engine_object, Engine) else None
