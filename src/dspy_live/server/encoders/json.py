"""JSON out. orjson for what it takes; a fallback that never fails for what it does not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Set
from typing import Any

import msgspec
import orjson

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def dumps(value: Any) -> bytes:
    """Return ``value`` as compact JSON in UTF-8.

    What JSON has no form for becomes the nearest thing that it has, and in the end its ``str``: a
    stream must not break because a program returned something odd.
    """
    try:
        return orjson.dumps(value, _plain, _OPTIONS)
    except Exception:  # lone surrogates, huge ints, cycles, a __str__ that raises
        return _slow(value)


def text(value: str) -> bytes:
    """Return a string as a JSON string."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _slow(value)


def _slow(value: Any, levels: int = 3) -> bytes:
    try:
        found = json.dumps(value, default=_plain, separators=(",", ":"), skipkeys=True)
        if "NaN" in found or "Infinity" in found:  # Python's own words, which no other reader of JSON knows
            found = json.dumps(json.loads(found, parse_constant=lambda _: None), separators=(",", ":"))
        return found.encode()
    except Exception:  # also what a user's own __str__ or model_dump raises
        if levels and isinstance(value, dict):
            # One odd value must not take its neighbours with it.
            items = (text(str(key)) + b":" + _slow(item, levels - 1) for key, item in value.items())
            return b"{" + b",".join(items) + b"}"
        return json.dumps(f"<{type(value).__name__} without a JSON form>").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return str(value)
