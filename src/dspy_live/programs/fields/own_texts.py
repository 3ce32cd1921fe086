"""Whether a text that was made once for a signature is still the one that the adapter would make now."""

from __future__ import annotations

from copy import copy
from operator import attrgetter
from typing import Any, TypeAlias

import dspy

TEXT_METHODS = (
    "format",
    "format_system_message",
    "format_field_description",
    "format_field_structure",
    "format_task_description",
    "format_field_with_value",
    "format_user_message_content",
    "user_message_output_requirements",
)
"""The methods of an adapter that its texts come from; one that has none of a name has ``None``."""

Fields: TypeAlias = list[tuple[str, tuple[Any, Any]]]

# Newer pydantics keep the fields under the first of the names, and look at each access by the other one.
_fields_of = attrgetter("__pydantic_fields__" if hasattr(dspy.Signature, "__pydantic_fields__") else "model_fields")
_said = attrgetter("annotation", "json_schema_extra")


def fields_now(signature: Any) -> Fields:
    """Return what a signature's fields say now: name, type, and the description and prefix beside them."""
    fields: dict[str, Any] = _fields_of(signature)
    return list(zip(fields, map(_said, fields.values()), strict=True))


def kept_fields(fields: Fields) -> Fields:
    """Return ``fields`` to be compared with later ones: a field may be changed in place."""
    return [(name, (annotation, copy(said))) for name, (annotation, said) in fields]


def methods_of(adapter_class: Any) -> tuple[Any, ...]:
    """Return the methods that make the texts of a class of adapter, as they are now."""
    return tuple(getattr(adapter_class, name, None) for name in TEXT_METHODS)


def has_methods_of_its_own(thing: Any, names: tuple[str, ...]) -> bool:
    """True where one of these methods was exchanged on the object itself, and hides its class's."""
    return not thing.__dict__.keys().isdisjoint(names)
