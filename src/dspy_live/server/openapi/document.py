"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1): every route that is served, and none else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from dspy_live.server.openapi import chat_operations, errors, events, program_schemas, run_operations, server_operations
from dspy_live.server.openapi.parts import About, Describe, JSONObject
from dspy_live.server.openapi.websockets import websockets
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.routing import Route

PAGES = frozenset({"/", "/docs", "/static/{file}"})
"""Routes for people, which the document leaves out."""

_OF_A_PROGRAM = "/programs/{program}"
_PER_PROGRAM = run_operations.PER_PROGRAM | chat_operations.PER_PROGRAM
_COMMON = run_operations.OPERATIONS | chat_operations.OPERATIONS | server_operations.OPERATIONS
_MORE_ERRORS = run_operations.MORE_ERRORS | chat_operations.MORE_ERRORS | server_operations.MORE_ERRORS
_SCHEMES: JSONObject = {
    "key": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "access_token"},
}


def build(
    programs: Mapping[str, ServedProgram], title: str, routes: Iterable[Route], *, secured: bool
) -> dict[str, Any]:
    """Return the document of the programs behind these routes; the first program is also behind the short paths.

    ``secured`` says that the server asks for a key. An operation that nobody has described here is told by the first
    line of its handler's docstring.
    """
    first = next(iter(programs.values()))
    paths: JSONObject = {}
    for route in routes:
        if route.path in PAGES:
            continue
        if route.path.startswith(_OF_A_PROGRAM + "/"):
            for program in programs.values():
                path = route.path.replace("{program}", program.name)
                _add(paths, path, route, About(program, programs), secured=secured)
        else:
            _add(paths, route.path, route, About(first, programs), secured=secured)
    doc: JSONObject = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version("dspy-live"), "description": first.schema.description},
        "paths": paths,
        "components": {"schemas": _components(programs)},
        "x-websockets": websockets(programs),
    }
    if secured:
        doc["components"]["securitySchemes"] = _SCHEMES
        doc["security"] = [{"key": []}, {"header": []}]
    return doc


def _components(programs: Mapping[str, ServedProgram]) -> JSONObject:
    made: JSONObject = {}
    for room in (errors, events, run_operations, chat_operations, server_operations):
        made |= room.components()
    for program in programs.values():
        made |= program_schemas.components(program)
    return made


def _add(paths: JSONObject, path: str, route: Route, about: About, *, secured: bool) -> None:
    place = (route.method, route.path.removeprefix(_OF_A_PROGRAM) if route.path not in _TEMPLATES else route.path)
    describe = _PER_PROGRAM.get(place) or _COMMON.get(place) or _from_docstring(route)
    operation = describe(about)
    runs = place in _PER_PROGRAM or place in chat_operations.RUNS
    told = errors.replies(route, runs=runs, more=_MORE_ERRORS.get(place, ()))
    operation["responses"] = told | operation["responses"]
    operation["operationId"] = _operation_id(route.method, path)
    if secured and route.open:
        operation["security"] = []
    elif secured and route.query_key:
        operation["security"] = [{name: []} for name in _SCHEMES]
    paths.setdefault(path, {})[route.method.lower()] = operation


_TEMPLATES = (_OF_A_PROGRAM,)


def _operation_id(method: str, path: str) -> str:
    return method.lower() + "_" + re.sub(r"[^\w.-]+", "_", path).strip("_")


def _from_docstring(route: Route) -> Describe:
    lines = (inspect.getdoc(route.handler) or route.path).splitlines()
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in route.path.split("/")
        if part.startswith("{") and not route.path.startswith(_OF_A_PROGRAM + "/")
    ]

    def describe(about: About) -> JSONObject:
        replies = {"200": {"description": "OK"}}
        made: JSONObject = {"summary": lines[0].rstrip("."), "tags": ["server"], "responses": replies}
        return made | ({"parameters": parameters} if parameters else {})

    return describe
