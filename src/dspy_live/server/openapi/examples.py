"""Values that fit a JSON Schema, so that every example of the document can be sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_live.core.schema import Field, Schema

_PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
_OF_DSPY: dict[str, Any] = {
    "Image": {"url": _PIXEL},
    "Audio": {"data": "UklGRg==", "audio_format": "wav"},
    "File": {"file_data": "data:text/plain;base64,SGVsbG8=", "filename": "hello.txt"},
    "History": {"messages": []},
}
_OF_FORMATS = {
    "date": "2026-01-31",
    "time": "12:30:00",
    "date-time": "2026-01-31T12:30:00Z",
    "duration": "PT1M",
    "uuid": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "email": "ada@example.org",
    "uri": "https://example.org/",
}
_DEPTH = 6


def inputs_of(schema: Schema) -> dict[str, dict[str, Any]]:
    """Return examples of a program's inputs by name: its demos, else its defaults and values that fit the rest."""
    demos = {f"demo {n}": dict(each["inputs"]) for n, each in enumerate(schema.examples, 1)}
    if demos:
        return demos
    made = {f.name: _field(f) for f in schema.inputs if f.required or f.default is not None}
    return {"example": made}


def _field(field: Field) -> Any:
    return field.default if field.default is not None else sample(field.json_schema, field.json_schema)


def sample(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Any:
    """Return a value that fits ``schema``, whose references lead into ``root``."""
    if "$ref" in schema:
        return sample(root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {}), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return sample(_likeliest(schema[key]), root, depth + 1)
    kind = schema.get("type")
    return sample_of(kind[0] if isinstance(kind, list) else kind, schema, root, depth)


def sample_of(kind: Any, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    """Return a value of one of JSON's types."""
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        return _array(schema, root, depth)
    if kind == "string":
        text = str(_OF_FORMATS.get(str(schema.get("format")), "text"))
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    if kind in ("integer", "number"):
        return _number(schema, 1 if kind == "integer" else 1.5)
    return {"boolean": True}.get(str(kind))


def _likeliest(schemas: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((each for each in schemas if each.get("type") != "null"), schemas[0])


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    properties = schema.get("properties", {})
    known = _OF_DSPY.get(str(schema.get("title")))
    if known is not None and set(known) <= set(properties):
        return known
    if depth > _DEPTH:
        return {}
    return {name: sample(properties.get(name, {}), root, depth + 1) for name in schema.get("required", ())}


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [sample(each, root, depth + 1) for each in schema["prefixItems"]]
    least = schema.get("minItems", 1 if depth < 2 else 0)
    return [sample(schema.get("items", {}), root, depth + 1) for _ in range(least)] if "items" in schema else []


def _number(schema: Mapping[str, Any], usual: float) -> float:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if low is not None and usual <= low:
        return type(usual)(low + ("exclusiveMinimum" in schema))
    return usual if high is None or usual <= high else type(usual)(high)
