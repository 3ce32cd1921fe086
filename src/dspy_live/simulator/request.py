"""Checks of a chat request before it is answered."""

from __future__ import annotations

from typing import Any

import orjson


def checked_body(data: bytes) -> dict[str, Any]:
    """The request's JSON object. Raises ``ValueError`` that names what would break an answer."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise ValueError(f"We could not parse the JSON body of your request: {exc}") from None
    if not isinstance(body, dict):
        raise ValueError("The body must be a JSON object.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise ValueError("'messages' must be a list of at least one message.")
    for name, most in (("n", 128), ("max_tokens", 2**31), ("max_completion_tokens", 2**31)):
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most):
            raise ValueError(f"'{name}' must be a whole number from 1 to {most}.")
    return body
