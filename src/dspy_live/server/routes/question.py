"""One plain text as a program's inputs: which input it goes to, and what it becomes."""

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
    return {field.name: value_of(field, text)}


def value_of(field: Field, text: str) -> Any:
    """Return what a text stands for: itself for a text input, else its value as JSON.

    It stays the text that it is where it is no JSON, and where the input takes it only so (``5`` for a ``str | None``).
    """
    if field.is_text:
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return text if not _fits(field, value) and _fits(field, text) else value


def _fits(field: Field, value: Any) -> bool:
    if field.convert is None:
        return True
    try:
        field.convert(value)
    except Exception:  # as Schema.check has it
        return False
    return True
