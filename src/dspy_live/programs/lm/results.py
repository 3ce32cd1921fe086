"""A provider's reply as the result that DSPy books, caches and hands to its adapters."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dspy_live.programs.internals import CallResult, PreparedCall, attributes

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM

_dspy_logger = logging.getLogger("dspy.clients.lm")


def result_of(lm: LM, call: PreparedCall, response: Any) -> CallResult:
    """Return DSPy's result for a chat-completion as a dict, or for what DSPy's own engines gave."""
    if isinstance(response, CallResult):
        return response
    raw = attributes(response)
    result = CallResult.legacy(lm, raw, kwargs=call.legacy)
    if any(choice.get("finish_reason") == "length" for choice in response.get("choices") or ()):
        _dspy_logger.warning("LM response was truncated; increase max_tokens or inspect history.")
    return result
