"""Inside a trial: ask each route of a FastAPI app once, with made-up inputs, between the app's start and its end."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlencode

from dspy_live.server.openapi.examples import sample

_METHODS = ("get", "post", "put", "patch", "delete")


async def ask_routes(app: Any, handlers: Collection[str]) -> None:
    """Send one request to each route of these handlers, and print what came back.

    Args:
        app: the FastAPI application; its lifespan is run around the requests.
        handlers: the names of the functions that answer.

    Raises ``RuntimeError`` when a reply's status is 500 or more. An exception of a handler comes as it is.
    """
    document = app.openapi()
    names = {
        (route.path, method.lower()): route.name for route in app.routes for method in getattr(route, "methods", ())
    }
    async with app.router.lifespan_context(app):
        for path, method, operation in _operations(document):
            if names.get((path, method)) not in handlers:
                continue
            status, body = await _ask(app, document, path, method, operation)
            print(f"{method.upper()} {path}: {status} {body[:200]}")
            if status >= 500:
                raise RuntimeError(f"{method.upper()} {path} answered {status}")


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield path, method, methods[method]


async def _ask(
    app: Any, document: dict[str, Any], path: str, method: str, operation: dict[str, Any]
) -> tuple[int, str]:
    """Call the application as a server does, with the least that the operation requires; return status and body."""
    root = {"$defs": document.get("components", {}).get("schemas", {})}
    given = {
        p["name"]: (p["in"], sample(p["schema"], root)) for p in operation.get("parameters", ()) if p.get("required")
    }
    for name, (place, value) in given.items():
        path = path.replace(f"{{{name}}}", str(value)) if place == "path" else path
    query = urlencode({name: value for name, (place, value) in given.items() if place == "query"})
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    body = json.dumps(sample(media["schema"], root)).encode() if media else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [
        (name.lower().encode(), str(value).encode()) for name, (place, value) in given.items() if place == "header"
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method.upper(), "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode(errors="replace")
