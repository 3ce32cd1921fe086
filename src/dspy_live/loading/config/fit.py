"""Hold the tables of a file against their shape, and list all that does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from dspy_live.loading.config.mistakes import nearest
from dspy_live.observe.redact import redact

Found = tuple[tuple[str | int, ...], str]
"""The place of a mistake, and what it is."""

_SHOWN = 60
"""Characters of a wrong value that are shown."""


def unfit(data: dict[str, Any], shape: type[msgspec.Struct]) -> list[Found]:
    """Return every mistake in ``data``, which is to become a ``shape``: unknown keys, types, bounds, missing keys."""
    whole = inspect.type_info(shape)
    assert isinstance(whole, inspect.StructType)
    return list(_table(data, whole, ()))


def _walk(value: Any, kind: inspect.Type, path: tuple[str | int, ...]) -> Iterator[Found]:
    inner = table_type(kind)
    if isinstance(value, dict) and isinstance(inner, inspect.StructType):
        yield from _table(value, inner, path)
    elif isinstance(value, dict) and isinstance(inner, inspect.DictType):
        for name, entry in value.items():
            yield from _walk(entry, inner.value_type, (*path, name))
    elif isinstance(value, list) and (entries := list_entries(kind)) is not None:
        for number, entry in enumerate(value):
            yield from _walk(entry, entries, (*path, number))
    elif not fits(value, kind):
        yield path, f"must be {expected(kind)}{'' if _is_secret(kind) else f'; got {shown(value)}'}"


def _table(value: dict[str, Any], kind: inspect.StructType, path: tuple[str | int, ...]) -> Iterator[Found]:
    fields = {field.encode_name: field for field in kind.fields}
    for name, entry in value.items():
        if name in fields:
            yield from _walk(entry, fields[name].type, (*path, name))
        else:
            what = "table" if isinstance(entry, dict) else "key"
            yield (*path, name), f"there is no {what} of this name; {nearest(name, fields)}"
    for name, field in fields.items():
        if field.required and name not in value:
            yield path, f"it must have {name!r}, {expected(field.type)}"


def plain_type(kind: inspect.Type) -> inspect.Type:
    """Return the type without what is said about it."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind


def _kinds(kind: inspect.Type) -> list[inspect.Type]:
    plain = plain_type(kind)
    return [plain_type(one) for one in plain.types] if isinstance(plain, inspect.UnionType) else [plain]


def _is_secret(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return bool((kind.extra or {}).get("secret")) or _is_secret(kind.type)
    return isinstance(kind, inspect.UnionType) and any(_is_secret(one) for one in kind.types)


def table_type(kind: inspect.Type) -> inspect.StructType | inspect.DictType | None:
    """Return the table that a value of this type may be, or ``None``."""
    return next((one for one in _kinds(kind) if isinstance(one, (inspect.StructType, inspect.DictType))), None)


def list_entries(kind: inspect.Type) -> inspect.Type | None:
    """Return the type of the entries where a value of this type may be a list, or ``None``."""
    return next((one.item_type for one in _kinds(kind) if isinstance(one, inspect.ListType)), None)


def fits(value: Any, kind: inspect.Type) -> bool:
    """True for a value that is neither table nor list and has this type."""
    kinds = _kinds(kind)
    return _fits(value, kinds[0]) if len(kinds) == 1 else any(fits(value, one) for one in kinds)


def _fits(value: Any, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values and not isinstance(value, bool)
    if isinstance(kind, inspect.StrType):
        return isinstance(value, str) and len(value) >= (kind.min_length or 0)
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.AnyType):
        return True
    if isinstance(kind, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool) and _bounded(value, kind)
    if isinstance(kind, inspect.FloatType):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value) and _bounded(value, kind)
    return False


def _bounded(value: float, kind: inspect.IntType | inspect.FloatType) -> bool:
    return (
        (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
    )


def expected(kind: inspect.Type) -> str:
    """Return what a value of this type is, in words."""
    kinds = [one for one in _kinds(kind) if not isinstance(one, inspect.NoneType)]
    return " or ".join(dict.fromkeys(_words(one) for one in kinds))


def _words(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(f'"{value}"' for value in kind.values)
    if isinstance(kind, inspect.StrType):
        return "a text" if not kind.min_length else "a text that is not empty"
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType):
        return f"a whole number{_bounds(kind)}"
    if isinstance(kind, inspect.FloatType):
        return f"a number{_bounds(kind)}"
    if isinstance(kind, inspect.ListType):
        return f"a list, each entry being {expected(kind.item_type)}"
    return "a table"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    low = f"at least {kind.ge:g}" if kind.ge is not None else f"over {kind.gt:g}" if kind.gt is not None else ""
    high = f"at most {kind.le:g}" if kind.le is not None else ""
    return " " + " and ".join(bound for bound in (low, high) if bound) if low or high else ""


def shown(value: Any) -> str:
    """Return a wrong value for a message: short, as TOML would write it, and without what looks like a key."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = redact(f'"{value}"' if isinstance(value, str) else str(value))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
