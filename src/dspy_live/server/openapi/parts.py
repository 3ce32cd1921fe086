"""The parts that operations are put together from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dspy_live.server.served import ServedProgram

JSONObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class About:
    """What an operation is about: one program, and all of the server's."""

    program: ServedProgram
    programs: Mapping[str, ServedProgram]


Describe: TypeAlias = Callable[[About], JSONObject]
"""Makes an operation without its errors; those follow from its route."""


def ref(name: str) -> JSONObject:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def reply(description: str, schema: JSONObject, **more: Any) -> JSONObject:
    """Return a reply with a JSON body."""
    return {"description": description, "content": {"application/json": {"schema": schema}}, **more}


def object_of(
    description: str = "", more: JSONObject | None = None, /, *, required: Sequence[str] | None = None, **own: Any
) -> JSONObject:
    """Return the schema of an object with these properties; all are required unless ``required`` says which."""
    properties = {**(more or {}), **own}
    made: JSONObject = {"type": "object", "properties": properties}
    if description:
        made["description"] = description
    if names := list(properties if required is None else required):
        made["required"] = names
    return made


def list_of(items: JSONObject) -> JSONObject:
    """Return the schema of an array."""
    return {"type": "array", "items": items}


def text(description: str = "", **more: Any) -> JSONObject:
    """Return the schema of a string."""
    return {"type": "string", **({"description": description} if description else {}), **more}


def number(description: str = "", **more: Any) -> JSONObject:
    """Return the schema of a number."""
    return {"type": "number", **({"description": description} if description else {}), **more}


def whole(description: str = "", **more: Any) -> JSONObject:
    """Return the schema of a whole number."""
    return {"type": "integer", **({"description": description} if description else {}), **more}


def flag(description: str = "") -> JSONObject:
    """Return the schema of true or false."""
    return {"type": "boolean", **({"description": description} if description else {})}


def or_null(schema: JSONObject) -> JSONObject:
    """Return the schema of what may be null too."""
    if isinstance(schema.get("type"), str):
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def in_path(name: str, description: str, **schema: Any) -> JSONObject:
    """Return a parameter in the path."""
    return {"name": name, "in": "path", "required": True, "description": description, "schema": text(**schema)}


def in_query(name: str, schema: JSONObject, description: str) -> JSONObject:
    """Return a parameter in the query string."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def in_header(name: str, description: str, **schema: Any) -> JSONObject:
    """Return a parameter in a header."""
    return {"name": name, "in": "header", "description": description, "schema": text(**schema)}


def body(schema: JSONObject, examples: Mapping[str, Any]) -> JSONObject:
    """Return a JSON request body with examples by name; each can be sent as it is."""
    named = {name: {"value": value} for name, value in examples.items()}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": named}}}


def event_stream(description: str, item: JSONObject, data: str) -> JSONObject:
    """Return a reply of server-sent events. ``x-item-schema`` is that of one event, ``data`` an example of the text.

    OpenAPI 3.1 knows no schema of a stream's items; 3.2 calls it ``itemSchema``.
    """
    media = {"schema": text(contentMediaType="text/event-stream"), "x-item-schema": item, "example": data}
    return {"description": description, "content": {"text/event-stream": media}}


def either(*replies: JSONObject) -> JSONObject:
    """Return one reply with the media types of several."""
    content = {kind: media for each in replies for kind, media in each["content"].items()}
    return replies[0] | {"description": " Or: ".join(each["description"] for each in replies), "content": content}
