"""``dspy.Predict`` in a run, where nothing of it was overridden: the same result by a shorter way.

DSPy has no seam between a predictor and its adapter, so the first run puts the methods of :func:`install` in the place
of ``dspy.Predict.forward`` and ``aforward``. They act inside of runs only; a subclass, a callback, an adapter of the
user's own, a wrapped method or a signature that asks for more than fields of text and data takes DSPy's own path.
"""

from __future__ import annotations

import functools
from collections.abc import Coroutine, Mapping
from operator import attrgetter
from typing import Any

import dspy
import msgspec

from dspy_live.core.call import Origin
from dspy_live.programs.fields.field_stream import FieldStream
from dspy_live.programs.fields.live_adapter import ours
from dspy_live.programs.fields.origin import origin_of
from dspy_live.programs.fields.own_texts import TEXT_METHODS, has_methods_of_its_own
from dspy_live.programs.internals import Adapter, AdapterParseError, PreparedCall, finalize, overrides
from dspy_live.programs.lm import engine
from dspy_live.programs.lm.lm import LM
from dspy_live.programs.lm.seam.lm_call import LMCall
from dspy_live.programs.lm.seam.wrapped_calls import is_wrapped
from dspy_live.programs.run.run import KEY, Run
from dspy_live.programs.stock.messages import messages_of
from dspy_live.programs.stock.plan import READERS, Plan, plan_of
from dspy_live.programs.stock.prediction import prediction_of
from dspy_live.programs.stock.response_format import json_options
from dspy_live.runtime.execution import bridge

_OF_THE_ADAPTER = (
    *TEXT_METHODS,
    "format_demos",
    "format_assistant_message_content",
    "parse",
    "_call_preprocess",
    "_call_postprocess",
    "_prepare_response_format",
)
_OF_THE_LM = ("acall", "forward", "aforward")
_CALLED = ("__call__", "acall")

_OF_PREDICT = ("_forward_preprocess", "_forward_postprocess")
_predict_parts = attrgetter(*_OF_PREDICT)
_called_parts = attrgetter(*_CALLED)
_adapter_parts = {
    adapter: attrgetter(*_CALLED, *(name for name in _OF_THE_ADAPTER if hasattr(adapter, name))) for adapter in READERS
}


def _passed_by(adapter: Any) -> tuple[Any, ...]:
    """The methods that the shorter way passes by. Where one was exchanged, the exchange must be heard."""
    above = _called_parts(dspy.ChatAdapter), _called_parts(Adapter), _called_parts(LM)
    return _predict_parts(dspy.Predict), _adapter_parts[adapter](adapter), above


_own = {adapter: _passed_by(adapter) for adapter in READERS}
_NOT_PLAIN = ("n", "num_generations", "rollout_id", "prompt_cache")
"""Options of an LM that DSPy prepares a call for."""


class _Call(msgspec.Struct):
    """One call of a stock predictor that takes the shorter way."""

    run: Run
    lm: LM
    adapter: Any
    signature: Any
    plan: Plan
    demos: Any
    inputs: dict[str, Any]
    asked: LMCall

    def origin(self) -> tuple[Origin, FieldStream | None]:
        """Return the origin of the LM call, and its sink where the run streams."""
        return origin_of(self.run, self.asked.theirs.messages, reading=self.plan.reading)

    def values(self, result: Any, stream: FieldStream | None) -> list[dict[str, Any]]:
        """Return the output fields of an LM's result, as the adapter returns them; ``stream`` is told where they differ
        from what was said."""
        here = overrides()
        if here["disable_history"] and here["usage_tracker"] is None:
            outputs = result.outputs
        else:
            outputs = finalize(self.lm, self.asked.theirs, result)
        if len(outputs) == 1 and type(outputs[0]) is str and outputs[0]:
            values = self.plan.values(outputs[0])
            if values is None:  # a default, an optional field, a repair or an error: DSPy decides
                values = self.plan.adapter.parse(self.adapter, self.signature, outputs[0])
            read = [values]
        else:
            read = self.adapter._call_postprocess(self.signature, self.signature, outputs, self.lm, {})
        if stream is not None and read and isinstance(read[0], Mapping):
            stream.compare(read[0])
        return read

    @property
    def falls_back(self) -> bool:
        return self.plan.adapter is not dspy.JSONAdapter and bool(self.adapter.use_json_adapter_fallback)


def install() -> None:
    """Let stock predictors take the shorter way in runs. Again, it does nothing."""
    forward, aforward = dspy.Predict.forward, dspy.Predict.aforward
    if forward.__qualname__ != "Predict.forward" or hasattr(forward, "__wrapped__") or hasattr(aforward, "__wrapped__"):
        return  # ours already, or wrapped by somebody

    @functools.wraps(forward)
    def quick_forward(self: Any, **kwargs: Any) -> Any:
        call = _call_of(self, kwargs, "__call__")
        return forward(self, **kwargs) if call is None else _answered(self, call)

    @functools.wraps(aforward)
    async def quick_aforward(self: Any, **kwargs: Any) -> Any:
        call = _call_of(self, kwargs, "acall")
        return await (aforward(self, **kwargs) if call is None else _answered_async(self, call))

    quick_aforward._dspy_live = True  # type: ignore[attr-defined]
    dspy.Predict.forward, dspy.Predict.aforward = quick_forward, quick_aforward


def answered(predictor: Any, inputs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    """Return what ``aforward(**inputs)`` of a ``dspy.Predict`` returns, while that is ours, with a coroutine less."""
    call = _call_of(predictor, inputs, "acall")
    if call is not None:
        return _answered_async(predictor, call)
    own: Coroutine[Any, Any, Any] = dspy.Predict.aforward.__wrapped__(predictor, **inputs)
    return own


def _answered(predictor: Any, call: _Call) -> Any:
    origin, stream = call.origin()
    result = bridge.wait_for(lambda: engine.answer(call.lm, call.asked, call.run, origin, stream), call.run)
    try:
        values = call.values(result, stream)
    except AdapterParseError:
        if not call.falls_back:
            raise
        fallback = call.adapter._make_json_adapter_fallback()
        values = fallback(call.lm, {}, call.signature, call.demos, call.inputs)
    return _predicted(predictor, call, values)


async def _answered_async(predictor: Any, call: _Call) -> Any:
    origin, stream = call.origin()
    result = await engine.answer(call.lm, call.asked, call.run, origin, stream)
    try:
        values = call.values(result, stream)
    except AdapterParseError:
        if not call.falls_back:
            raise
        fallback = call.adapter._make_json_adapter_fallback()
        values = await fallback.acall(call.lm, {}, call.signature, call.demos, call.inputs)
    return _predicted(predictor, call, values)


def _predicted(predictor: Any, call: _Call, values: list[dict[str, Any]]) -> Any:
    """Return the prediction, and add it to DSPy's trace, as ``_forward_postprocess`` does."""
    prediction = prediction_of(values, call.signature)
    here = overrides()
    trace, most = here["trace"], here["max_trace_size"]
    if trace is not None and most > 0:
        if len(trace) >= most:
            trace.pop(0)
        trace.append((predictor, dict(call.inputs), prediction))
    return prediction


def _call_of(predictor: Any, kwargs: dict[str, Any], method: str) -> _Call | None:
    """Return the call, or ``None`` where it must take DSPy's own way."""
    if type(predictor) is not dspy.Predict:
        return None
    here = overrides()  # all of DSPy's settings, in a run
    run = here.get(KEY)
    adapter: Any = here.get("adapter")
    kind = getattr(adapter, "_dspy_live", None)
    own = _own.get(kind)
    if run is None or own is None or _passed_by(kind) != own or is_wrapped(method):
        return None
    mine: dict[str, Any] = object.__getattribute__(predictor, "__dict__")  # past DSPy's own look at each attribute
    if mine["config"] or mine["fields"] or not mine.keys().isdisjoint(_OF_PREDICT):
        return None
    given = mine["lm"] or here["lm"]
    lm = given if type(given) is LM and not run.call.config else ours(given)
    if type(lm) is not LM or not _is_plain(lm) or here["send_stream"] is not None:
        return None
    if here["callbacks"] or adapter.callbacks or lm.callbacks or has_methods_of_its_own(adapter, _OF_THE_ADAPTER):
        return None
    signature, demos = mine["signature"], mine["demos"]
    plan = plan_of(signature, kind)
    if plan is None or kwargs.keys() != plan.writers.keys():
        return None
    options = json_options(plan, adapter, lm, signature) if kind is dspy.JSONAdapter else {}
    if options is None or (messages := messages_of(plan, adapter, signature, demos, kwargs)) is None:
        return None
    legacy = {"model": lm.model, "messages": messages, **lm.kwargs, **options}
    prepared = PreparedCall(None, messages, options, legacy, None, lm.cache, 1, True)
    return _Call(run, lm, adapter, signature, plan, demos, kwargs, LMCall(legacy, prepared, lm.cache))


def _is_plain(lm: LM) -> bool:
    """True where DSPy would send the LM's own options as they are."""
    if lm.model_type != "chat" or not getattr(lm, "_cache_responses", True) or has_methods_of_its_own(lm, _OF_THE_LM):
        return False
    options = lm.kwargs
    return options.keys().isdisjoint(_NOT_PLAIN) or all(options.get(name) is None for name in _NOT_PLAIN)
