"""The user message of ChatAdapter from a template, where all that changes between calls is text.

DSPy builds a pydantic ``TypeAdapter`` for every value of every call: 80 µs for a ``str``, which comes out
as it went in. The template is what DSPy's own method makes of placeholders, so that it says what DSPy says.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from dspy_live.programs.fields.own_texts import Fields, fields_now, kept_fields

# Cannot stand in a signature: a lone surrogate is no text that a provider could be sent.
_MARK = "\udc00"

Template: TypeAlias = list[tuple[str, str]]
"""Pairs of fixed text and the input that follows it; the last one is followed by none."""

_Kept: TypeAlias = tuple[Fields, Any, Template | None]
_templates: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], _Kept]] = weakref.WeakKeyDictionary()


def user_message(make: Callable[..., Any], signature: Any, inputs: Mapping[str, Any], methods: Any = None) -> Any:
    """Return what ``make(inputs, main_request=True)`` returns, from a template where every input is plain text.

    ``methods`` are those that ``make`` calls: with others, or with changed fields, there is another template.
    """
    names = tuple(name for name in signature.input_fields if name in inputs)
    if not names or any(type(inputs[name]) is not str for name in names):
        return make(inputs, main_request=True)
    kept, fields = _templates.setdefault(signature, {}), fields_now(signature)
    found = kept.get(names)
    if found is None or found[0] != fields or found[1] != methods:
        found = kept[names] = (kept_fields(fields), methods, template_of(make, names))
    template = found[2]
    return make(inputs, main_request=True) if template is None else fill(template, inputs)


def fill(template: Template, inputs: Mapping[str, str]) -> str:
    """Return the message with the inputs' texts."""
    return "".join([before + inputs[name] if name else before for before, name in template])


def template_of(make: Callable[..., Any], names: tuple[str, ...]) -> Template | None:
    """Return the template of ``make(inputs, main_request=True)``; ``None`` where values don't show as they are."""
    made = make({name: f"{_MARK}{name}{_MARK}" for name in names}, main_request=True)
    if not isinstance(made, str):
        return None
    pieces = made.split(_MARK)
    fixed, found = pieces[::2], tuple(pieces[1::2])
    # A value at the very end would be stripped with the message.
    if found != names or not fixed[-1].strip():
        return None
    return [*zip(fixed, names, strict=False), (fixed[-1], "")]
