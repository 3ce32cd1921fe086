"""``/sessions``: the conversations that the server keeps for a key: list, read, delete."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qs

from dspy_live.core.errors import InputError, NotFound
from dspy_live.server.sessions.store import SessionInfo
from dspy_live.server.transport.http import Request

MOST_LISTED = 100


async def index(request: Request) -> None:
    """List the key's sessions, the last used first; ``?limit=`` of them, of those last used ``?before=``."""
    query = parse_qs(request.scope["query_string"].decode("latin-1"))
    limit = _number(query, "limit", MOST_LISTED)
    before = _number(query, "before", 0.0) or None
    if not (1 <= limit <= MOST_LISTED and limit == int(limit)):
        raise InputError(f"'limit' must be a whole number from 1 to {MOST_LISTED}; got {limit:g}", field="limit")
    with request.app.sessions.reached():
        found = await request.app.sessions.store.sessions(request.key, int(limit), before)
    await request.reply_json({"sessions": [_info(one) for one in found], "more": len(found) == limit})


async def show(request: Request) -> None:
    """Show one session: its turns, the oldest first, each with the inputs and outputs of its messages."""
    name = request.params["id"]
    with request.app.sessions.reached():
        found = await request.app.sessions.store.load(request.key, name)
    if found is None:
        raise _unknown(name)
    info = SessionInfo(found.id, found.program, found.created, found.updated, len(found.turns))
    turns = [{"id": turn.id, "created": turn.created, "messages": turn.messages} for turn in found.turns]
    await request.reply_json(_info(info) | {"turns": turns})


async def delete(request: Request) -> None:
    """Delete one session. What is being answered in it now is not kept either."""
    name = request.params["id"]
    if not await request.app.sessions.delete(request.key, name):
        raise _unknown(name)
    await request.reply_empty(204)


def _info(one: SessionInfo) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def _unknown(name: str) -> NotFound:
    return NotFound(f"no session {name!r} is kept for this key")


def _number(query: dict[str, list[str]], name: str, default: float) -> float:
    try:
        number = float(query[name][0]) if name in query else default
        if not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        raise InputError(f"{name!r} must be a number; got {query[name][0]!r}", field=name, expected="number") from None
