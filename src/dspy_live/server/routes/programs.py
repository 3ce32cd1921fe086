"""``/programs``: what is served here, for people, clients and the playground."""

from __future__ import annotations

from typing import Any

from dspy_live.core.schema import Field
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.http import Request


async def index(request: Request) -> None:
    """List the programs; the first is the default one."""
    app = request.app
    described = [describe(one) for one in app.programs.values() if app.keys.may_run(request.key, one.name)]
    await request.reply_json({"title": app.title, "simulated": app.simulated, "programs": described})


async def show(request: Request) -> None:
    """Describe one program."""
    await request.reply_json(describe(request.app.program(request)))


def describe(program: ServedProgram) -> dict[str, Any]:
    """Return a program's name, description and fields."""
    schema = program.schema
    return {
        "name": program.name,
        "signature": schema.name,
        "description": schema.description,
        "simulated": program.simulated,
        "open": schema.open,
        "inputs": [_field(f) for f in schema.inputs],
        "outputs": [_field(f) for f in schema.outputs],
        "examples": [dict(example) for example in schema.examples],
    }


def _field(field: Field) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": field.name,
        "type": field.type,
        "description": field.description,
        "required": field.required,
        "schema": dict(field.json_schema),
    }
    if field.default is not None:
        described["default"] = field.default
    return described
