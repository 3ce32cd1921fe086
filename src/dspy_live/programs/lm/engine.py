"""The LM engine: one prepared call of DSPy's in, DSPy's own result out, the words to the run on the way.

All of it is asynchronous, and none of it runs code of the user's, so that it may work on any loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from dspy_live.core.call import Call, Origin
from dspy_live.core.errors import BudgetExceeded, Stop
from dspy_live.core.events import Event, Reasoning, Result, TextDelta, Usage
from dspy_live.core.service import Service, compose
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.core.usage import NOTHING
from dspy_live.programs.cache import access as cache_access
from dspy_live.programs.fields.field_stream import CallUsageSink
from dspy_live.programs.internals import CallResult, _account_failed_call, _hint_responses_api, combine
from dspy_live.programs.lm import accounting
from dspy_live.programs.lm.booking import lm_record, usage_event
from dspy_live.programs.lm.endpoints import endpoint_for
from dspy_live.programs.lm.layers import lm_layers
from dspy_live.programs.lm.reply_facts import is_truncated
from dspy_live.programs.lm.results import first_output
from dspy_live.programs.lm.server_address import server_of
from dspy_live.runtime.runtime import Runtime, default_runtime

if TYPE_CHECKING:
    from dspy_live.programs.fields.field_stream import FieldStream
    from dspy_live.programs.lm.lm import LM
    from dspy_live.programs.lm.seam.lm_call import LMCall
    from dspy_live.programs.run.run import Run


def answer(
    lm: LM, lm_call: LMCall, run: Run | None, origin: Origin, stream: FieldStream | None
) -> Coroutine[Any, Any, CallResult]:
    """Answer one LM call: from the cache, else from the endpoint inside of the LM's layers.

    Raises DSPy's own ``LMError``s, :class:`~dspy_live.core.errors.BudgetExceeded` and other errors of the layers;
    inside a run :class:`~dspy_live.core.errors.Stop` where the run is over or a budget ends it. Cancellation closes the
    connection at once.
    """
    if run is None:
        return _answer(lm, lm_call, None, default_runtime(), origin, None)
    return run.part(_answer(lm, lm_call, run, run.runtime, origin, stream))


async def answer_once(lm: LM, lm_call: LMCall, run: Run | None, origin: Origin, sink: Sink | None = None) -> CallResult:
    """Answer one LM call by one attempt, uncached, for a caller that repeats and caches itself; it is booked as any.

    ``sink`` is told the words as they come; without one the reply is asked for as a whole. Raises as :func:`answer`.
    """
    runtime = default_runtime() if run is None else run.runtime
    accounting.install(runtime.account)
    call = _call_of(lm, lm_call, run, origin, None)
    usage: Sink = DISCARD if run is None else CallUsageSink(run, origin)
    if run is not None:
        run.check()
    work = _asked(
        lm, lm_call, run, runtime, call if sink is None else call.but(stream=True), _Told(sink or DISCARD, usage), None
    )
    return await (work if run is None else run.part(work))


class _Told:
    """The sink of a caller that takes the words, beside the run's own, which takes the usage."""

    __slots__ = ("_usage", "_words", "room")

    def __init__(self, words: Sink, usage: Sink) -> None:
        self._words = words
        self._usage = usage
        self.room = words.room

    def push(self, event: Event) -> bool:
        return (self._usage if isinstance(event, Usage) else self._words).push(event)


async def _answer(
    lm: LM, lm_call: LMCall, run: Run | None, runtime: Runtime, origin: Origin, stream: FieldStream | None
) -> CallResult:
    call = _call_of(lm, lm_call, run, origin, stream)
    sink: Sink = stream or (DISCARD if run is None else CallUsageSink(run, origin))
    if run is not None:
        run.check()
        if run.full:  # while the reader is far behind, no LM is asked
            await sink.room()
            run.check()
    if lm_call.cache and stream is None and not call.stream:
        # A call that streams waits for no other: its reader wants the words as they come.
        async with cache_access.turn(lm, lm_call):
            return await _found_or_asked(lm, lm_call, run, runtime, call, sink, None)
    if lm_call.cache:
        return await _found_or_asked(lm, lm_call, run, runtime, call, sink, stream)
    try:  # what _asked() does, without a coroutine of its own: streams wait here by the thousand
        first = await _service_of(lm, lm_call, runtime)(call, sink)
        return await _completed(lm, lm_call, runtime, call, sink, stream, first)
    except BaseException as exc:
        _tell_failure(lm, lm_call, run, exc)
        raise


async def _found_or_asked(
    lm: LM,
    lm_call: LMCall,
    run: Run | None,
    runtime: Runtime,
    call: Call,
    sink: Sink,
    stream: FieldStream | None,
) -> CallResult:
    accounting.install(runtime.account)
    if (cached := await cache_access.lookup(lm, lm_call)) is not None:
        _tell_cached(cached, call, runtime, sink, stream)
        return cached
    result = await _asked(lm, lm_call, run, runtime, call, sink, stream)
    await cache_access.store(lm, lm_call, result)
    return result


async def _asked(
    lm: LM,
    lm_call: LMCall,
    run: Run | None,
    runtime: Runtime,
    call: Call,
    sink: Sink,
    stream: FieldStream | None,
) -> CallResult:
    try:
        first = await _service_of(lm, lm_call, runtime)(call, sink)
        return await _completed(lm, lm_call, runtime, call, sink, stream, first)
    except BaseException as exc:
        _tell_failure(lm, lm_call, run, exc)
        raise


def _tell_failure(lm: LM, lm_call: LMCall, run: Run | None, exc: BaseException) -> None:
    """Tell DSPy of a failure that it does not see itself. Raises the one that takes its place, where one does."""
    error = _over_budget(run, exc) if isinstance(exc, BudgetExceeded) else exc
    if not lm_call.once:
        _hint_responses_api(lm, error)
        _account_failed_call(lm, (), error)
    if error is not exc:
        raise error from exc


async def _completed(
    lm: LM, lm_call: LMCall, runtime: Runtime, call: Call, sink: Sink, stream: FieldStream | None, first: Result
) -> CallResult:
    """Return as many completions as were asked for.

    An endpoint that answers with fewer, as those do that don't know ``n``, is asked again for each of the others.
    """
    result: CallResult = first.response  # type: ignore[union-attr]  # by the layer of DSPy's results
    if stream is not None:
        stream.finish(first_output(result)[0])
        sink = stream.usage_sink()  # the first completion is the one that streams
    missing = lm_call.n - len(result.outputs)
    if missing <= 0 or not result.outputs:
        return result
    lm_call = lm_call.single()
    endpoint = endpoint_for(lm, lm_call)
    service = compose(endpoint, lm_layers(lm, runtime, server=server_of(endpoint)))
    call = call.but(inputs=lm_call.inputs, stream=_streams(lm, None))
    others = [(await service(call, sink)).response for _ in range(missing)]  # type: ignore[union-attr]
    return combine([result, *others], model_type=lm.model_type)


def _service_of(lm: LM, lm_call: LMCall, runtime: Runtime) -> Service:
    """Return the endpoint of the call inside of the LM's layers."""
    endpoint = endpoint_for(lm, lm_call)
    lasting = not lm_call.cache and not runtime.lm_layers  # else: layers that know of this one call, or a user's own
    made_of = (endpoint, runtime.account, lm.live, lm.model, lm.num_retries, lm_call.once)
    if lasting and (kept := lm.kept_service) is not None and kept[0] == made_of:
        return kept[1]
    accounting.install(runtime.account)
    layers = lm_layers(lm, runtime, looked_up=lm_call.cache, server=server_of(endpoint), once=lm_call.once)
    service = compose(endpoint, layers)
    if lasting:
        lm.kept_service = (made_of, service)
    return service


def _call_of(lm: LM, lm_call: LMCall, run: Run | None, origin: Origin, stream: FieldStream | None) -> Call:
    streams = _streams(lm, stream)
    if run is None:
        return Call(lm_call.inputs, model=lm.model, stream=streams, origin=origin)
    outer = run.call
    deadline = outer.deadline
    if deadline is not None and (loop := asyncio.get_running_loop()) is not run.loop:
        deadline += loop.time() - run.loop.time()  # each loop has a clock of its own
    return Call(
        lm_call.inputs, model=lm.model, key=outer.key, deadline=deadline, stream=streams, parent=run.id,
        trace=outer.trace, meters=outer.meters, origin=origin,
    )  # fmt: skip


def _streams(lm: LM, stream: FieldStream | None) -> bool:
    live = lm.live
    if live.stream != "auto":
        return live.stream == "always"
    return stream is not None or live.first_token_timeout is not None or live.idle_timeout is not None


def _tell_cached(result: CallResult, call: Call, runtime: Runtime, sink: Sink, stream: FieldStream | None) -> None:
    text, reasoning = first_output(result)
    sink.push(Reasoning(reasoning, "", 0))
    sink.push(TextDelta(text))
    if stream is not None:
        stream.finish(text)
    runtime.account.record(lm_record(call, call.model, NOTHING, 0.0, "hit"))
    sink.push(usage_event(call, call.model, NOTHING, 0.0, cached=True, truncated=is_truncated(result)))


def _over_budget(run: Run | None, error: BudgetExceeded) -> BaseException:
    if run is None:
        return error
    # A tool, BestOfN or dspy.Parallel that swallows Exception must not go on spending, nor gather() hide it.
    run.stop(error)
    return Stop(error)
