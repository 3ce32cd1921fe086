"""``/openapi.json``: an OpenAPI 3.1 document made from the schemas."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from dspy_live.core.schema import Field, Schema
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.http import Request

JSONObject = dict[str, Any]

ERRORS = {
    "400": "The body is no JSON object.",
    "401": "No API key, or one that is not known.",
    "413": "The body is over the size limit.",
    "422": "An input is unknown, missing or of the wrong type; the message names it.",
    "429": "Over a rate limit; try again after `Retry-After` seconds.",
    "500": "The program failed.",
    "502": "The LM failed.",
    "503": "No room, or shutting down; try again after `Retry-After` seconds.",
    "504": "The deadline passed.",
}


async def document(request: Request) -> None:
    """Reply with the document; it is made once."""
    app = request.app
    if app.openapi is None:
        app.openapi = build(app.programs, app.title, secured=len(app.keys) > 0)
    prefix = request.scope.get("root_path", "")
    await request.reply_json(app.openapi | {"servers": [{"url": prefix or "/"}]})


def build(programs: Mapping[str, ServedProgram], title: str, *, secured: bool) -> JSONObject:
    """Return the document of all programs; the first one is also behind the short paths."""
    components: JSONObject = {"Error": _ERROR, "Run": _RUN, "Usage": _USAGE}
    paths: JSONObject = {}
    for i, program in enumerate(programs.values()):
        _add_schemas(components, program)
        if i == 0:
            paths |= _program_paths("", program)
        if len(programs) > 1:
            paths |= _program_paths(f"/programs/{program.name}", program)
    paths |= _common_paths()
    info = {
        "title": title,
        "version": version("dspy-live"),
        "description": next(iter(programs.values())).schema.description,
    }
    doc: JSONObject = {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": components}}
    if secured:
        doc["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        doc["security"] = [{"key": []}]
    return doc


def _add_schemas(components: JSONObject, program: ServedProgram) -> None:
    schema = program.schema
    inputs = _object(components, program.name, schema.inputs, f"What {program.name} takes.")
    if schema.open:
        inputs["additionalProperties"] = True
    names = {f.name for f in schema.inputs}
    if "stream" not in names:
        inputs["properties"]["stream"] = {"type": "boolean", "description": "Reply with an event stream."}
    if "config" not in names:
        inputs["properties"]["config"] = {"type": "object", "description": "LM options for this call alone."}
    outputs = _object(components, program.name, schema.outputs, f"What {program.name} gives.")
    given = outputs["properties"]
    given.setdefault("duration_ms", {"type": "number", "description": "How long the run took, in milliseconds."})
    given.setdefault("run", {"$ref": "#/components/schemas/Run"})
    components[f"{program.name}.Inputs"] = inputs
    components[f"{program.name}.Outputs"] = outputs


def _object(components: JSONObject, program: str, fields: tuple[Field, ...], description: str) -> JSONObject:
    properties = {f.name: _field(components, program, f) for f in fields}
    required = [f.name for f in fields if f.required]
    body: JSONObject = {"type": "object", "description": description, "properties": properties}
    body["additionalProperties"] = False
    if required:
        body["required"] = required
    return body


def _field(components: JSONObject, program: str, field: Field) -> JSONObject:
    schema: JSONObject = dict(field.json_schema)
    definitions = schema.pop("$defs", {})
    for name, definition in definitions.items():
        components[_component(program, name)] = _moved(definition, program)
    schema = _moved(schema, program)
    if field.description:
        schema["description"] = field.description
    if field.default is not None:
        schema["default"] = field.default
    return schema


def _component(program: str, name: str) -> str:
    own = ("Inputs", "Outputs")  # the program's own two, which a user's class may be called as well
    return f"{program}.{name}_" if name in own else f"{program}.{name}"


def _moved_ref(ref: str, program: str) -> str:
    inside = "#/$defs/"
    return f"#/components/schemas/{_component(program, ref[len(inside) :])}" if ref.startswith(inside) else ref


def _moved(schema: Any, program: str) -> Any:
    """Point references into a field's own ``$defs`` at the document's components."""
    if isinstance(schema, Mapping):
        return {
            key: _moved_ref(value, program)
            if key == "$ref" and isinstance(value, str)
            else {name: _moved_ref(ref, program) for name, ref in value.items()}
            if key == "mapping" and isinstance(value, Mapping) and "propertyName" in schema
            else _moved(value, program)
            for key, value in schema.items()
        }
    if isinstance(schema, (list, tuple)):
        return [_moved(item, program) for item in schema]
    return schema


def _program_paths(prefix: str, program: ServedProgram) -> JSONObject:
    body = {
        "required": True,
        "content": {"application/json": {"schema": _ref(f"{program.name}.Inputs"), "example": example(program.schema)}},
    }
    config = {
        "name": "X-Config",
        "in": "header",
        "description": "LM options for this call alone, as a JSON object.",
        "schema": {"type": "string"},
    }
    about = program.schema.description

    def post(summary: str, replies: JSONObject) -> JSONObject:
        return {
            "post": {
                "summary": summary,
                "description": about,
                "tags": [program.name],
                "parameters": [config],
                "requestBody": body,
                "responses": replies | _errors("400", "401", "413", "422", "429", "500", "502", "503", "504"),
            }
        }

    whole = {"200": _reply("The outputs.", _ref(f"{program.name}.Outputs"))}
    created = {"201": _reply("The run's id and where its events are.", {"type": "object"})}
    return {
        f"{prefix}/predict": post("Run the program", whole),
        f"{prefix}/predict/stream": post("Run the program and stream its events", {"200": _EVENTS}),
        f"{prefix}/runs": post("Start a run whose events can be read, and read again after a disconnect", created),
    }


def _common_paths() -> JSONObject:
    run = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    last = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}
    nothing = {"description": "The run is over."}
    missing = {"404": _reply("No such run.", _ref("Error"))}

    def get(summary: str, tag: str) -> JSONObject:
        return {"get": {"summary": summary, "tags": [tag], "responses": {"200": {"description": "OK"}}}}

    chat = {
        "summary": "Chat completion: a program is a model",
        "tags": ["OpenAI-compatible"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"200": {"description": "A completion, or chunks of one."}} | _errors("400", "404", "422", "502"),
    }
    return {
        "/runs/{id}/events": {
            "get": {
                "summary": "Stream a run's events, also after Last-Event-ID",
                "tags": ["runs"],
                "parameters": [run, last],
                "responses": {"200": _EVENTS, "204": nothing} | missing,
            }
        },
        "/runs/{id}": {
            "delete": {
                "summary": "Cancel a run",
                "tags": ["runs"],
                "parameters": [run],
                "responses": {"202": {"description": "The run is being stopped."}, "204": nothing} | missing,
            }
        },
        "/programs": get("The programs and their fields", "server"),
        "/v1/models": get("The programs as models", "OpenAI-compatible"),
        "/v1/chat/completions": {"post": chat},
        "/health/live": get("The process runs", "server"),
        "/health/ready": get("New runs are taken", "server"),
        "/metrics": get("Statistics for Prometheus", "server"),
        "/stats": get("Statistics of this process", "server"),
        "/usage": get("What was used and spent", "server"),
    }


def example(schema: Schema) -> JSONObject:
    """Return an example of a program's inputs: its defaults, and something of the right type for the rest."""
    return {f.name: _sample(f) for f in schema.inputs if f.required or f.default is not None}


def _sample(field: Field) -> Any:
    if field.default is not None:
        return field.default
    if options := field.json_schema.get("enum"):
        return options[0]
    samples: JSONObject = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    return samples.get(str(field.json_schema.get("type")))


def _errors(*codes: str) -> JSONObject:
    return {code: _reply(ERRORS.get(code, "No such thing."), _ref("Error")) for code in codes}


def _reply(description: str, schema: JSONObject) -> JSONObject:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> JSONObject:
    return {"$ref": f"#/components/schemas/{name}"}


_EVENTS: JSONObject = {
    "description": "Server-sent events: started, status, token, partial, restart, reasoning, tool, usage, custom, "
    "prediction, error, done. Ids are `RUN:SEQ`; the last data is `[DONE]`.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}

_ERROR: JSONObject = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "run_id"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "run_id": {"type": ["string", "null"]},
                "field": {"type": "string"},
                "expected": {},
                "retry_after": {"type": "number"},
            },
        }
    },
}

_USAGE: JSONObject = {
    "type": "object",
    "properties": {
        **{
            name: {"type": "integer"}
            for name in (
                "prompt_tokens",
                "completion_tokens",
                "total_tokens",
                "cached_tokens",
                "reasoning_tokens",
                "lm_calls",
                "cached_calls",
            )
        },
        "cost": {"type": ["number", "null"], "description": "US dollars; null when a price is not known."},
        "estimated": {"type": "boolean"},
    },
}

_RUN: JSONObject = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "usage": _ref("Usage"),
        "cached": {"type": "boolean", "description": "Every LM reply came from the cache."},
        "truncated": {"type": "boolean", "description": "A reply of the LM was cut at its limit of tokens."},
    },
}
