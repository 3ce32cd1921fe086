"""Programs as tools: their names, and the JSON Schemas of what they take and give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspy_live.core.schema import Field
from dspy_live.server.routes.messages import history_input
from dspy_live.server.served import ServedProgram

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""What pydantic makes."""
SESSION = "session"
_SESSION_SCHEMA = {
    "type": "string",
    "description": "A name of your choice for a conversation that is to be gone on with.",
}


def tool(program: ServedProgram) -> dict[str, Any]:
    """Return the description of a program as a tool.

    An input for a conversation's history is left to the server: the tool takes the name of a session in its place. No
    output is required, since a module may give back less than its last predictor said.
    """
    schema = program.schema
    history = history_input(schema)
    inputs = [f for f in schema.inputs if f.name != history]
    takes = {"$schema": DIALECT} | _object(inputs, [f.name for f in inputs if f.required])
    if history is not None:
        takes["properties"].setdefault(SESSION, _SESSION_SCHEMA)
    if not schema.open:
        takes["additionalProperties"] = False
    made = {
        "name": program.name,
        "title": schema.name,
        "description": schema.description or f"Runs the program {program.name}.",
        "inputSchema": takes,
        "annotations": {"title": schema.name},
    }
    if schema.outputs:
        made["outputSchema"] = _object(schema.outputs, [])
    return made


def _object(fields: Iterable[Field], required: list[str]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for f in fields:
        own = dict(f.json_schema)
        for name, definition in own.pop("$defs", {}).items():
            if definitions.setdefault(name, definition) != definition:  # two types of one name
                definitions[f"{f.name}.{name}"] = _renamed(definition, name, f.name)
                own = _renamed(own, name, f.name)
        if f.description:
            own["description"] = f.description
        if f.default is not None:
            own["default"] = f.default
        properties[f.name] = own
    made: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        made["required"] = required
    if definitions:
        made["$defs"] = definitions
    return made


def _renamed(schema: Any, name: str, prefix: str) -> Any:
    """Return a schema whose references to one definition go to the one with a prefix."""
    if isinstance(schema, Mapping):
        return {
            key: f"#/$defs/{prefix}.{name}"
            if key == "$ref" and value == f"#/$defs/{name}"
            else _renamed(value, name, prefix)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_renamed(one, name, prefix) for one in schema]
    return schema
