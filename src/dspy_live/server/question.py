"""Doors that take one text: which input it goes to, and what it becomes."""

from __future__ import annotations

from typing import Any

import orjson

from dspy_live.core.errors import InputError
from dspy_live.core.schema import Field, Schema


def question_field(schema: Schema) -> Field:
    """Return the input that a plain text goes to: the only one, or the only one that is required.

    Raises :class:`InputError` for a program where that is not clear.
    """
    candidates = schema.inputs if len(schema.inputs) == 1 else tuple(f for f in schema.inputs if f.required)
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(f"{f.name!r} ({f.type})" for f in schema.inputs) or "any"
    raise InputError(
        f"a plain text can't be given to this program, which takes {names}: send a JSON object of its inputs",
        field="inputs",
        expected="object",
    )


def question_inputs(schema: Schema, text: str) -> dict[str, Any]:
    """Return the inputs of a plain text; where the input is no text, it is read as JSON if it is JSON."""
    field = question_field(schema)
    if field.is_text:
        return {field.name: text}
    try:
        return {field.name: orjson.loads(text)}
    except orjson.JSONDecodeError:
        return {field.name: text}
