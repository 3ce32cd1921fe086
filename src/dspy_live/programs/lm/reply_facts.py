"""What an LM's reply says of itself, for the books: the model that made it, and why each completion ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_live.programs.internals import CallResult


def reply_facts(response: Any) -> dict[str, Any]:
    """Return ``response_model`` and ``finish_reasons`` of a reply, as an ``LMRecord`` has them.

    ``response`` is a provider's reply of chat completions or of the Responses API, or DSPy's result of one. What it
    does not say is left empty.
    """
    if isinstance(response, CallResult):
        if response.responses:
            reasons = tuple(one.finish_reason for one in response.responses if one.finish_reason)
            return {"response_model": _text(response.response_model), "finish_reasons": reasons}
        response = response.raw
    if not isinstance(response, Mapping):
        return {}
    return {"response_model": _text(response.get("model")), "finish_reasons": _reasons(response)}


def _reasons(reply: Mapping[str, Any]) -> tuple[str, ...]:
    choices = reply.get("choices")
    if choices:
        found = (one.get("finish_reason") for one in choices if isinstance(one, Mapping))
        return tuple(reason for reason in found if isinstance(reason, str))
    # The Responses API has a status, and a reason only for a reply that is incomplete.
    details = reply.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else reply.get("status")
    return (reason,) if isinstance(reason, str) else ()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
