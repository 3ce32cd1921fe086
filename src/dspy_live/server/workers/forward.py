"""An HTTP request that one worker has taken and another one answers: ASGI's messages, over their link."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import Message

from dspy_live.core.errors import StreamBroken
from dspy_live.runtime.scope import Scope
from dspy_live.server.runs.last_words import last_words
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.event_stream import EVENT_STREAM
from dspy_live.server.transport.http import CLOSE
from dspy_live.server.workers.link import asked, read_frame, write_frame

if TYPE_CHECKING:
    from dspy_live.server.app import App
    from dspy_live.server.transport.http import Request

_KEPT = ("type", "http_version", "method", "scheme", "path", "query_string", "root_path", "headers", "client", "server")
FORWARDED = "dspy_live.forwarded"
"""Marks the ASGI scope of a request that another worker has taken, so that it is not handed on again."""
_LOST = "the worker that ran this run has ended, and the run with it"


def portable(request: Request) -> dict[str, Any]:
    """Return the question that hands a request on. It has no body: the routes of a run read none."""
    return {"ask": "http", "scope": {name: request.scope[name] for name in _KEPT if name in request.scope}}


async def forward(path: Path, request: Request) -> None:
    """Answer ``request`` with what the worker at ``path`` answers; its client's leaving goes there too.

    A stream whose worker dies ends in an error event. Raises :class:`StreamBroken` where no reply has begun.
    """
    scope, events = Scope(), False
    try:
        async with asked(path, portable(request)) as (reader, _):
            with cancel_on_disconnect(request, scope.fail), scope:
                head = await read_frame(reader)
                events = await _begin(request, head)
                while await _relay(request, await read_frame(reader)):
                    pass
    except (OSError, EOFError) as exc:
        error = StreamBroken(_LOST)
        if not events:
            raise error from exc
        await request.write(last_words(error, request.params["id"]), False)


async def forward_unheard(path: Path, question: Mapping[str, Any]) -> None:
    """Have the worker at ``path`` answer, and throw its answer away."""
    try:
        async with asked(path, question) as (reader, _):
            while (await read_frame(reader)).get("more_body", True):
                pass
    except (OSError, EOFError):
        return


async def _begin(request: Request, message: Message) -> bool:
    """Send the reply's head to the client; true for an event stream."""
    headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
    if request.app.runs.leaving and CLOSE not in headers:
        headers.append(CLOSE)
    request.status = message["status"]
    await request.send_raw({**message, "headers": headers})
    return any(header in EVENT_STREAM for header in headers)


async def _relay(request: Request, message: Message) -> bool:
    """Send a piece of the reply's body to the client; false after the last one."""
    request.sent += len(message["body"])
    await request.send_raw(message)
    return bool(message.get("more_body", False))


async def serve_forwarded(
    app: App, scope: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer a request that another worker has taken."""
    scope[FORWARDED] = True
    scope["headers"] = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    for name in ("client", "server"):
        scope[name] = tuple(scope[name]) if scope.get(name) else None
    told = False

    async def receive() -> Message:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await reader.read()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        write_frame(writer, message)
        await writer.drain()

    await app.serve_forwarded(scope, receive, send)
