"""The schemas of what programs take and give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_live.core.schema import Field
from dspy_live.server.openapi.parts import JSONObject, flag, number, or_null, ref, text
from dspy_live.server.served import ServedProgram

_OWN = ("Inputs", "Outputs")
"""A program's own two, which a class of the user may be called as well."""


def components(program: ServedProgram) -> JSONObject:
    """Return the schemas of a program's inputs and outputs, and of the classes in them."""
    made: JSONObject = {}
    schema = program.schema
    inputs = _object(made, program.name, schema.inputs, f"What {program.name} takes.")
    if schema.open:
        inputs["additionalProperties"] = True
    names = {field.name for field in schema.inputs}
    options = {
        "stream": flag("Reply with an event stream."),
        "config": or_null(ref("Options")),
        "session": text("The conversation that the run goes on with.", minLength=1),
    }
    inputs["properties"] |= {name: option for name, option in options.items() if name not in names}
    outputs = _object(made, program.name, schema.outputs, f"What {program.name} gives.")
    outputs["additionalProperties"] = True  # a program may give more than its signature says
    outputs.pop("required", None)
    given = outputs["properties"]
    given.setdefault("duration_ms", number("How long the run took, in milliseconds."))
    given.setdefault("run", ref("Run"))
    return made | {f"{program.name}.Inputs": inputs, f"{program.name}.Outputs": outputs}


def _object(made: JSONObject, program: str, fields: tuple[Field, ...], description: str) -> JSONObject:
    properties = {field.name: _field(made, program, field) for field in fields}
    required = [field.name for field in fields if field.required]
    body: JSONObject = {"type": "object", "description": description, "properties": properties}
    body["additionalProperties"] = False
    if required:
        body["required"] = required
    return body


def _field(made: JSONObject, program: str, field: Field) -> JSONObject:
    schema: JSONObject = dict(field.json_schema)
    for name, definition in schema.pop("$defs", {}).items():
        made[_component(program, name)] = _moved(definition, program)
    schema = _moved(schema, program)
    if field.description:
        schema["description"] = field.description
    if field.default is not None:
        schema["default"] = field.default
    return schema


def _component(program: str, name: str) -> str:
    return f"{program}.{name}_" if name in _OWN else f"{program}.{name}"


def _moved_ref(place: str, program: str) -> str:
    inside = "#/$defs/"
    return f"#/components/schemas/{_component(program, place[len(inside) :])}" if place.startswith(inside) else place


def _moved(schema: Any, program: str) -> Any:
    """Point references into a field's own ``$defs`` at the document's components."""
    if isinstance(schema, Mapping):
        return {
            key: _moved_ref(value, program)
            if key == "$ref" and isinstance(value, str)
            else {name: _moved_ref(place, program) for name, place in value.items()}
            if key == "mapping" and isinstance(value, Mapping) and "propertyName" in schema
            else _moved(value, program)
            for key, value in schema.items()
        }
    if isinstance(schema, (list, tuple)):
        return [_moved(item, program) for item in schema]
    return schema
