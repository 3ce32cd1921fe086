"""``POST /mcp``: one JSON-RPC message, and its reply as JSON or as an event stream."""

from __future__ import annotations

import secrets
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dspy_live.server.encoders.json import dumps
from dspy_live.server.routes.mcp.call import call_tool
from dspy_live.server.routes.mcp.revision import HANDSHAKE, MODERN, SERVER_INFO, is_modern
from dspy_live.server.routes.mcp.rpc import METHOD_NOT_FOUND, Message, RpcError, error_reply, read
from dspy_live.server.routes.mcp.tools import tool
from dspy_live.server.transport.http import JSON, Request

SESSION_HEADER = b"mcp-session-id"
_FRESH = {"ttlMs": 0, "cacheScope": "private"}
"""Which programs there are depends on the key, and on when the server was started."""


async def mcp(request: Request) -> None:
    """Answer a message."""
    message: Message | None = None
    modern = True
    try:
        message = read(await request.body())
        if message is None:
            await request.reply_empty(202)
            return
        modern = is_modern(request, message)
        if message.id is None:
            if message.method == "notifications/cancelled" and not modern:
                session = request.header(SESSION_HEADER) or ""
                request_id = message.params.get("requestId")
                found = request.app.mcp_calls.cancel(request.key, session, request_id)
                if not found and request.app.siblings is not None:
                    await request.app.siblings.cancel_mcp(request.key, session, request_id)
            await request.reply_empty(202)
            return
        if message.method == "tools/call":
            await call_tool(request, message, server_meta(request) if modern else {}, modern=modern)
            return
        result = _result(request, message, modern=modern)
    except RpcError as error:
        reply = error_reply(None if message is None else message.id, error)
        await request.reply(error.status if modern else 200, dumps(reply), JSON)
        return
    if modern:
        result |= {"resultType": "complete", "_meta": server_meta(request)}
    await request.reply_json({"jsonrpc": "2.0", "id": message.id, "result": result})


async def leave(request: Request) -> None:
    """End a session of 2025: nothing is kept for it but the conversations, which have a retention of their own."""
    await request.reply_empty(204)


def _result(request: Request, message: Message, *, modern: bool) -> dict[str, Any]:
    match message.method:
        case "tools/list":
            may_run = request.app.keys.may_run
            tools = [tool(one) for one in request.app.programs.values() if may_run(request.key, one.name)]
            return {"tools": tools} | (_FRESH if modern else {})
        case "server/discover" if modern:
            return {"supportedVersions": [*MODERN, *HANDSHAKE], **_capabilities(), **_FRESH}
        case "initialize" if not modern:
            asked = message.params.get("protocolVersion")
            request.reply_headers.append((SESSION_HEADER, secrets.token_hex(16).encode()))
            info = {"serverInfo": _server_info(request), **_capabilities()}
            return {"protocolVersion": asked if asked in HANDSHAKE else HANDSHAKE[0], **info}
        case "ping" if not modern:
            return {}
    raise RpcError(METHOD_NOT_FOUND, f"this server has no method {message.method!r}", status=404)


def _capabilities() -> dict[str, Any]:
    return {
        "capabilities": {"tools": {}},
        "instructions": "Each tool runs a program. One with a session goes on with the conversation of that name.",
    }


def server_meta(request: Request) -> dict[str, Any]:
    """Return what every result says of its server."""
    return {SERVER_INFO: _server_info(request)}


def _server_info(request: Request) -> dict[str, Any]:
    try:
        number = version("dspy-live")
    except PackageNotFoundError:
        number = "0"
    return {"name": "dspy-live", "title": request.app.title, "version": number}
