"""``dspy.Predict`` in a run, where nothing of it was overridden: the same result by a shorter way.

DSPy has no seam between a predictor and its adapter, so the first run puts the methods of :func:`install` in the place
of ``dspy.Predict.forward`` and ``aforward``. They act inside of runs only; a subclass, a callback, an adapter of the
user's own, a wrapped method or a signature that asks for more than fields of text and data takes DSPy's own path.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import dspy

from dspy_live.programs.fields.live_adapter import compared, ours
from dspy_live.programs.fields.origin import origin_of
from dspy_live.programs.fields.own_texts import TEXT_METHODS, chat_methods, has_methods_of_its_own
from dspy_live.programs.internals import (
    Adapter,
    AdapterParseError,
    PreparedCall,
    _check_encodable,
    finalize,
    overrides,
    settings,
)
from dspy_live.programs.lm import engine
from dspy_live.programs.lm.lm import LM
from dspy_live.programs.lm.seam.lm_call import lm_call_of
from dspy_live.programs.lm.seam.wrapped_calls import is_wrapped
from dspy_live.programs.run.run import Run, current_run
from dspy_live.programs.stock.chat_format import messages_of, values_of
from dspy_live.programs.stock.plan import Plan, plan_of
from dspy_live.runtime.execution import bridge

_predict_parts = attrgetter("_forward_preprocess", "_forward_postprocess")
_chat_parts = attrgetter("__call__", "acall", "parse")
_adapter_parts = attrgetter("__call__", "acall", "_call_preprocess", "_call_postprocess", "format_demos")
_lm_parts = attrgetter("__call__", "acall")
_OF_THE_ADAPTER = (*TEXT_METHODS, "format_demos", "parse", "_call_preprocess", "_call_postprocess")
_OF_THE_LM = ("acall", "forward", "aforward")


def _passed_by() -> tuple[Any, ...]:
    """The methods that the shorter way passes by. Where one was exchanged, the exchange must be heard."""
    chat = dspy.ChatAdapter
    return _predict_parts(dspy.Predict), _chat_parts(chat), chat_methods(chat), _adapter_parts(Adapter), _lm_parts(LM)


_own = _passed_by()
_NOT_PLAIN = ("n", "num_generations", "rollout_id", "prompt_cache")
"""Options of an LM that DSPy prepares a call for."""


@dataclass(slots=True)
class _Call:
    """One call of a stock predictor that takes the shorter way."""

    run: Run
    lm: LM
    adapter: Any
    signature: Any
    plan: Plan
    demos: Any
    inputs: dict[str, Any]
    prepared: PreparedCall

    def values(self, result: Any) -> list[dict[str, Any]]:
        """Return the output fields of an LM's result, as the adapter returns them."""
        outputs = finalize(self.lm, self.prepared, result)
        if len(outputs) == 1 and type(outputs[0]) is str and outputs[0]:
            return list(compared([values_of(self.plan, self.adapter, self.signature, outputs[0])]))
        read = self.adapter._call_postprocess(self.signature, self.signature, outputs, self.lm, {})
        return list(compared(read))

    @property
    def falls_back(self) -> bool:
        return bool(self.adapter.use_json_adapter_fallback)


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

    dspy.Predict.forward, dspy.Predict.aforward = quick_forward, quick_aforward


def _answered(predictor: Any, call: _Call) -> Any:
    origin, stream = origin_of(call.run, call.prepared.messages)
    result = bridge.wait_for(
        lambda: engine.answer(call.lm, lm_call_of(call.lm, call.prepared), call.run, origin, stream), call.run
    )
    try:
        values = call.values(result)
    except AdapterParseError:
        if not call.falls_back:
            raise
        fallback = call.adapter._make_json_adapter_fallback()
        values = fallback(call.lm, {}, call.signature, call.demos, call.inputs)
    return predictor._forward_postprocess(values, call.signature, **call.inputs)


async def _answered_async(predictor: Any, call: _Call) -> Any:
    origin, stream = origin_of(call.run, call.prepared.messages)
    result = await engine.answer(call.lm, lm_call_of(call.lm, call.prepared), call.run, origin, stream)
    try:
        values = call.values(result)
    except AdapterParseError:
        if not call.falls_back:
            raise
        fallback = call.adapter._make_json_adapter_fallback()
        values = await fallback.acall(call.lm, {}, call.signature, call.demos, call.inputs)
    return predictor._forward_postprocess(values, call.signature, **call.inputs)


def _call_of(predictor: Any, kwargs: dict[str, Any], method: str) -> _Call | None:
    """Return the call, or ``None`` where it must take DSPy's own way."""
    run = current_run()
    if run is None or not _is_stock(predictor):
        return None
    here = overrides()
    adapter: Any = here.get("adapter")
    if getattr(adapter, "_dspy_live", None) is not dspy.ChatAdapter or adapter.callbacks or here.get("callbacks"):
        return None
    if has_methods_of_its_own(adapter, _OF_THE_ADAPTER):
        return None
    lm = predictor.lm or settings.lm
    if lm is not None:
        lm = ours(lm)
    if type(lm) is not LM or lm.callbacks or settings.callbacks or here.get("send_stream") is not None:
        return None
    if is_wrapped(method) or not _is_plain(lm):
        return None
    signature = predictor.signature
    plan = plan_of(signature)
    if plan is None or kwargs.keys() != plan.inputs:
        return None
    for name, value in kwargs.items():
        if type(value) is not str or name not in plan.text_inputs:
            return None
    messages = messages_of(plan, adapter, signature, predictor.demos, kwargs)
    _check_encodable(messages[1:], "messages")
    if run.call.stream:
        run.formatted[id(messages)] = (messages, adapter, signature)
    legacy = {"model": lm.model, "messages": messages, **lm.kwargs}
    prepared = PreparedCall(None, messages, {}, legacy, None, lm.cache, 1, True)
    return _Call(run, lm, adapter, signature, plan, predictor.demos, kwargs, prepared)


def _is_stock(predictor: Any) -> bool:
    if type(predictor) is not dspy.Predict or predictor.config or predictor.fields:
        return False
    # An attribute of the object's own hides the class's method.
    if "_forward_preprocess" in predictor.__dict__ or "_forward_postprocess" in predictor.__dict__:
        return False
    return _passed_by() == _own


def _is_plain(lm: LM) -> bool:
    """True where DSPy would send the LM's own options as they are."""
    if lm.model_type != "chat" or not getattr(lm, "_cache_responses", True) or has_methods_of_its_own(lm, _OF_THE_LM):
        return False
    return all(lm.kwargs.get(name) is None for name in _NOT_PLAIN)
