"""What an LM's reply says of itself: the model that made it, why each completion ended, whether it was cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspy_live.programs.internals import CallResult

_CUT = frozenset({"length", "max_output_tokens"})
"""The reasons of chat completions and of the Responses API for a reply that ends at the limit of tokens."""

_ONLY_TEXT = frozenset({str})


def reply_facts(response: Any) -> tuple[str, tuple[str, ...]]:
    """Return the model and the finish reasons of a reply, as an ``LMRecord`` has them.

    ``response`` is a provider's reply of chat completions or of the Responses API, or DSPy's result of one. What it
    does not say is left empty.
    """
    if type(response) is dict:
        return _text(response.get("model")), _reasons(response)
    if isinstance(response, CallResult):
        if response.responses:
            reasons = tuple(one.finish_reason for one in response.responses if one.finish_reason)
            return _text(response.response_model), reasons
        response = response.raw
    if not isinstance(response, Mapping):
        return "", ()
    return _text(response.get("model")), _reasons(response)


def is_cut(reasons: Iterable[str]) -> bool:
    """True where one of these finish reasons is the limit of tokens."""
    return not _CUT.isdisjoint(reasons)


def is_truncated(response: Any) -> bool:
    """True for a reply of which a completion ended at the limit of tokens; ``response`` as in :func:`reply_facts`."""
    return is_cut(reply_facts(response)[1])


def _reasons(reply: Mapping[str, Any]) -> tuple[str, ...]:
    choices = reply.get("choices")
    if choices:
        found: list[Any] = [one.get("finish_reason") for one in choices if isinstance(one, Mapping)]
        if not _ONLY_TEXT.issuperset(map(type, found)):
            found = [reason for reason in found if isinstance(reason, str)]
        return tuple(found)
    # The Responses API has a status, and a reason only for a reply that is incomplete.
    details = reply.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else reply.get("status")
    return (reason,) if isinstance(reason, str) else ()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
