"""Inputs and outputs as a span's attribute: JSON, cut, and without keys."""

from __future__ import annotations

from typing import Any

import orjson

from dspy_live.observe.redact import MAX_SECRET, redact

MAX_CONTENT = 20_000
"""Characters of inputs and of outputs that a span holds, where contents are chosen."""


def content(value: Any) -> str:
    """Return ``value`` as JSON, its first 20,000 characters, secrets taken out."""
    try:
        text = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        text = str(value)
    return redact(text[: MAX_CONTENT + MAX_SECRET])[:MAX_CONTENT]  # an image may be of megabytes


def _plain(value: Any) -> Any:
    as_dict = getattr(value, "toDict", None)  # DSPy's predictions and examples
    return as_dict() if callable(as_dict) else str(value)
