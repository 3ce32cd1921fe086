"""Whether an LM's reply was cut at its limit of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_live.programs.internals import CallResult


def is_truncated(response: Any) -> bool:
    """True for a reply of which a completion ended at the limit of tokens.

    ``response`` is a provider's reply of chat completions or of the Responses API, or DSPy's result of one.
    """
    if isinstance(response, CallResult):
        if any(one.finish_reason == "length" for one in response.responses):
            return True
        response = response.raw
    if not isinstance(response, Mapping):
        return False
    details = response.get("incomplete_details")
    if isinstance(details, Mapping) and details.get("reason") == "max_output_tokens":
        return True
    choices = response.get("choices") or ()
    return any(isinstance(one, Mapping) and one.get("finish_reason") == "length" for one in choices)
