"""The user message of ChatAdapter from a template, where all that changes between calls is text.

DSPy builds a pydantic ``TypeAdapter`` for every value of every call: 80 µs for a ``str``, which comes out
as it went in. The template is what DSPy's own method makes of placeholders, so that it says what DSPy says.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

# Cannot stand in a signature: a lone surrogate is no text that a provider could be sent.
_MARK = "\udc00"

_templates: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], list[tuple[str, str]] | None]] = (
    weakref.WeakKeyDictionary()
)


def user_message(make: Callable[..., Any], signature: Any, inputs: Mapping[str, Any]) -> Any:
    """Return what ``make(inputs, main_request=True)`` returns, from a template where every input is plain text."""
    names = tuple(name for name in signature.input_fields if name in inputs)
    if not names or any(type(inputs[name]) is not str for name in names):
        return make(inputs, main_request=True)
    kept = _templates.setdefault(signature, {})
    if names not in kept:
        kept[names] = _template(make, names)
    template = kept[names]
    if template is None:
        return make(inputs, main_request=True)
    return "".join([before + inputs[name] if name else before for before, name in template])


def _template(make: Callable[..., Any], names: tuple[str, ...]) -> list[tuple[str, str]] | None:
    """Pairs of fixed text and the input that follows it; ``None`` where the values don't show as they are."""
    made = make({name: f"{_MARK}{name}{_MARK}" for name in names}, main_request=True)
    if not isinstance(made, str):
        return None
    pieces = made.split(_MARK)
    fixed, found = pieces[::2], tuple(pieces[1::2])
    # A value at the very end would be stripped with the message.
    if found != names or not fixed[-1].strip():
        return None
    return [*zip(fixed, names, strict=False), (fixed[-1], "")]
