"""The LM engine: one prepared call of DSPy's in, DSPy's own result out, the words to the run on the way.

All of it is asynchronous, and none of it runs code of the user's, so that it may work on any loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy_live.core.call import Call, Origin
from dspy_live.core.errors import BudgetExceeded, Stop
from dspy_live.core.events import Completion, Reasoning, TextDelta
from dspy_live.core.service import Service, compose
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.core.usage import NOTHING
from dspy_live.programs.cache import access as cache_access
from dspy_live.programs.fields.field_stream import CallUsageSink
from dspy_live.programs.internals import CallResult, PreparedCall, _account_failed_call, _hint_responses_api, combine
from dspy_live.programs.lm import accounting
from dspy_live.programs.lm.booking import lm_record, usage_event
from dspy_live.programs.lm.endpoints import endpoint_for
from dspy_live.programs.lm.layers import lm_layers
from dspy_live.programs.lm.results import first_output
from dspy_live.runtime.runtime import Runtime, default_runtime

if TYPE_CHECKING:
    from dspy_live.programs.fields.field_stream import FieldStream
    from dspy_live.programs.lm.lm import LM
    from dspy_live.programs.run.run import Run


async def answer(
    lm: LM, prepared: PreparedCall, run: Run | None, origin: Origin, stream: FieldStream | None
) -> CallResult:
    """Answer one LM call: from the cache, else from the endpoint inside of the LM's layers.

    Raises DSPy's own ``LMError``s, :class:`~dspy_live.core.errors.BudgetExceeded` and other errors of the layers;
    inside a run :class:`~dspy_live.core.errors.Stop` where the run is over or a budget ends it. Cancellation closes the
    connection at once.
    """
    if run is None:
        return await _answer(lm, prepared, None, default_runtime(), origin, None)
    return await run.part(_answer(lm, prepared, run, run.runtime, origin, stream))


async def _answer(
    lm: LM, prepared: PreparedCall, run: Run | None, runtime: Runtime, origin: Origin, stream: FieldStream | None
) -> CallResult:
    accounting.install(runtime.account)
    call = _call_of(lm, prepared, run, origin, stream)
    sink: Sink = stream or (DISCARD if run is None else CallUsageSink(run, origin))
    if run is not None:
        run.check()
        await sink.room()  # while the reader is far behind, no LM is asked
        run.check()
    if prepared.cache and stream is None and not call.stream:
        # A call that streams waits for no other: its reader wants the words as they come.
        async with cache_access.turn(lm, prepared):
            return await _found_or_asked(lm, prepared, run, runtime, call, sink, None)
    return await _found_or_asked(lm, prepared, run, runtime, call, sink, stream)


async def _found_or_asked(
    lm: LM,
    prepared: PreparedCall,
    run: Run | None,
    runtime: Runtime,
    call: Call,
    sink: Sink,
    stream: FieldStream | None,
) -> CallResult:
    if prepared.cache and (cached := await cache_access.lookup(lm, prepared)) is not None:
        _tell_cached(cached, call, runtime, sink, stream)
        return cached
    try:
        result = await _ask(lm, prepared, runtime, call, sink, stream)
    except BaseException as exc:
        error = _over_budget(run, exc) if isinstance(exc, BudgetExceeded) else exc
        _hint_responses_api(lm, error)
        _account_failed_call(lm, (), error)
        if error is exc:
            raise
        raise error from exc
    if prepared.cache:
        await cache_access.store(lm, prepared, result)
    return result


async def _ask(
    lm: LM, prepared: PreparedCall, runtime: Runtime, call: Call, sink: Sink, stream: FieldStream | None
) -> CallResult:
    """Return as many completions as were asked for.

    An endpoint that answers with fewer, as those do that don't know ``n``, is asked again for each of the others.
    """
    service = compose(endpoint_for(lm, prepared), lm_layers(lm, runtime, looked_up=prepared.cache))
    results = [await _completed(service, call, sink)]
    if stream is not None:
        stream.finish(first_output(results[0])[0])
        sink = stream.usage_sink()  # the first completion is the one that streams
    missing = prepared.n - len(results[0].outputs)
    if missing > 0 and results[0].outputs:
        prepared = replace(prepared, legacy={k: v for k, v in prepared.legacy.items() if k != "n"}, n=1)
        service = compose(endpoint_for(lm, prepared), lm_layers(lm, runtime))
        call = call.but(inputs=prepared.legacy, stream=_streams(lm, None))
        results += [await _completed(service, call, sink) for _ in range(missing)]
    return results[0] if len(results) == 1 else combine(results, model_type=lm.model_type)


async def _completed(service: Service, call: Call, sink: Sink) -> Any:
    completion = await service(call, sink)
    assert isinstance(completion, Completion)  # as the layer of DSPy's results has made it
    return completion.response


def _call_of(lm: LM, prepared: PreparedCall, run: Run | None, origin: Origin, stream: FieldStream | None) -> Call:
    streams = _streams(lm, stream)
    if run is None:
        return Call(prepared.legacy, model=lm.model, stream=streams, origin=origin)
    outer = run.call
    deadline = outer.deadline
    if deadline is not None and (loop := asyncio.get_running_loop()) is not run.loop:
        deadline += loop.time() - run.loop.time()  # each loop has a clock of its own
    return Call(
        prepared.legacy, model=lm.model, key=outer.key, deadline=deadline, stream=streams, parent=run.id,
        trace=outer.trace, meters=run.meters, origin=origin,
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
    sink.push(usage_event(call, call.model, NOTHING, 0.0, cached=True, response=result))


def _over_budget(run: Run | None, error: BudgetExceeded) -> BaseException:
    if run is None:
        return error
    # A tool, BestOfN or dspy.Parallel that swallows Exception must not go on spending, nor gather() hide it.
    run.stop(error)
    return Stop(error)
