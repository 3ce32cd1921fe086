"""Make a file with mistakes readable, so that what its tables say of each other can be looked at all the same."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from dspy_live.loading.config.fit import fits, list_entries, plain_type, table_type


def repaired(data: dict[str, Any], shape: type[msgspec.Struct]) -> dict[str, Any]:
    """Return ``data`` without the values that don't fit ``shape``; what must be there has a stand-in."""
    whole = inspect.type_info(shape)
    assert isinstance(whole, inspect.StructType)
    return _table(data, whole)


def _table(data: dict[str, Any], kind: inspect.StructType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in kind.fields:
        name = field.encode_name
        value = _value(data[name], field.type) if name in data else None
        if value is not None:
            found[name] = value
        elif field.required:
            found[name] = "?" if isinstance(plain_type(field.type), inspect.StrType) else 1
    return found


def _value(value: Any, kind: inspect.Type) -> Any:
    """Return a value that fits, or ``None``."""
    inner = table_type(kind)
    if isinstance(value, dict) and isinstance(inner, inspect.StructType):
        return _table(value, inner)
    if isinstance(value, dict) and isinstance(inner, inspect.DictType):
        entries = {name: _value(entry, inner.value_type) for name, entry in value.items()}
        return {name: entry for name, entry in entries.items() if entry is not None}
    entry_type = list_entries(kind)
    if isinstance(value, list) and entry_type is not None:
        return value if all(_value(entry, entry_type) is not None for entry in value) else None
    return value if fits(value, kind) else None
