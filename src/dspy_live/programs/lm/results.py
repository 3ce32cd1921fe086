"""A provider's reply as the result that DSPy books, caches and hands to its adapters."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspy_live.core.call import Call
from dspy_live.core.errors import LiveError
from dspy_live.core.events import Completion, Result
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.programs.internals import CallResult, attributes, settings
from dspy_live.programs.lm.errors import as_dspy_error

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM

_BESIDE_TEXT = frozenset({"reasoning_content", "tool_calls", "provider_specific_fields"})
"""Parts of a message that DSPy puts beside its text."""

_ONLY_INT = frozenset({int})

_dspy_logger = logging.getLogger("dspy.clients.lm")


class DspyResults:
    """A layer that returns replies as DSPy's ``CallResult``, and raises an endpoint's failures as DSPy's own errors.

    Inside of a retry, so that a reply which DSPy can't read is a failure like any other. It does not keep ``lm``,
    which keeps its layers, alive: whoever calls has it.
    """

    def __init__(self, lm: LM) -> None:
        self._lm = weakref.ref(lm)

    def __repr__(self) -> str:
        return "DspyResults()"

    def __call__(self, service: Service) -> Service:
        async def as_dspy(call: Call, sink: Sink) -> Result:
            lm = self._lm()
            assert lm is not None
            try:
                reply = await service(call, sink)
                assert isinstance(reply, Completion)
                result = _result_of(lm, call.inputs, reply.response)
            except LiveError:
                raise
            except Exception as exc:
                error = as_dspy_error(exc, lm.model)
                if error is exc:
                    raise
                raise error from exc
            if result.cost is None:
                result.cost = reply.cost
            return Completion(result, result.cost)

        return as_dspy


def _result_of(lm: LM, inputs: Mapping[str, Any], response: Any) -> CallResult:
    if isinstance(response, CallResult):
        return response
    result = _plain_result(lm, inputs, response)
    if result is None:
        result = CallResult.legacy(lm, attributes(_with_texts(response)), kwargs=dict(inputs))
    for choice in response.get("choices") or ():
        if choice.get("finish_reason") == "length":
            _dspy_logger.warning("LM response was truncated; increase max_tokens or inspect history.")
            break
    return result


def _plain_result(lm: LM, inputs: Mapping[str, Any], response: Any) -> CallResult | None:
    """Return what ``CallResult.legacy`` makes of a reply that is text alone; ``None`` for any other.

    It asks each level of the reply for every kind of thing that a reply may hold, which takes as long as the rest of
    the call.
    """
    choices = response.get("choices") if type(response) is dict and lm.model_type == "chat" else None
    if not choices or inputs.get("logprobs") or lm.kwargs.get("logprobs"):
        return None
    texts = []
    for choice in choices:
        message = choice.get("message")
        if type(message) is not dict:
            return None
        if not _BESIDE_TEXT.isdisjoint(message) and any(message.get(name) for name in _BESIDE_TEXT):
            return None
        text = message.get("content")
        texts.append("" if text is None and not _says_something(message) else text)
    usage = response.get("usage") or {}
    if type(usage) is not dict or not _ONLY_INT.issuperset(map(type, usage.values())):
        return None
    raw = response if settings.disable_history else attributes(response)  # as attributes for those who read histories
    return CallResult(outputs=texts, usage=dict(usage), raw=raw, response_model=response.get("model", lm.model))


def _with_texts(response: Any) -> Any:
    """Return a reply that says an empty text where it says nothing at all, as DSPy's own reader of replies does."""
    choices = response.get("choices") or ()
    if all(_says_something(choice.get("message")) for choice in choices):
        return response
    return {**response, "choices": [_with_text(choice) for choice in choices]}


def _with_text(choice: Any) -> Any:
    message = choice.get("message")
    return choice if _says_something(message) else {**choice, "message": {**message, "content": ""}}


def _says_something(message: Any) -> bool:
    """False for a message whose content is null, with nothing beside it."""
    if not isinstance(message, Mapping) or message.get("content") is not None:
        return True
    return any(message.get(name) for name in (*_BESIDE_TEXT, "refusal"))


def first_output(result: CallResult) -> tuple[str, str]:
    """Return text and reasoning of the first completion; empty strings where there is none."""
    if not result.outputs:
        return "", ""
    output = result.outputs[0]
    return text_of(output), (output.get("reasoning_content") or "") if isinstance(output, dict) else ""


def text_of(output: Any) -> str:
    """Return the text of one of DSPy's outputs: a string, or a dictionary with ``text``."""
    text = output.get("text") if isinstance(output, dict) else output
    return text if isinstance(text, str) else ""
