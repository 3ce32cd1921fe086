"""What MCP's Python client makes of the server: ``python mcp_client.py URL [MODE]`` prints one JSON object.

MODE is ``auto`` (revision 2026-07-28) or ``legacy`` (the handshake of 2025).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
from mcp import Client

URL, MODE = sys.argv[1] + "/mcp", (sys.argv[2:] or ["auto"])[0]
SLOW = "Why? [sim tps=50 length=2000]"


async def call(client: Client, name: str, **arguments: Any) -> Any:
    notes: list[Any] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        notes.append([done, message])

    result = await client.call_tool(name, arguments, progress_callback=progress)
    return {
        "error": result.is_error,
        "text": [block.text for block in result.content if block.type == "text"],
        "structured": result.structured_content,
        "meta": result.meta,
        "notes": notes,
    }


async def cancelled(client: Client) -> bool:
    begun = anyio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with anyio.create_task_group() as group:

        async def ask() -> None:
            await client.call_tool("qa", {"question": SLOW}, progress_callback=progress)

        group.start_soon(ask)
        await begun.wait()
        group.cancel_scope.cancel()
    return begun.is_set()


async def unknown(client: Client) -> Any:
    try:
        await client.call_tool("nothing", {})
    except Exception as exc:
        return {"class": type(exc).__name__, "text": str(exc)}
    return None


async def main() -> None:
    async with Client(URL, mode=MODE) as client:
        tools = (await client.list_tools()).tools
        found = {
            "version": client.protocol_version,
            "tools": {t.name: {"takes": t.input_schema, "gives": t.output_schema} for t in tools},
            "agent": await call(client, "agent", question="Why? [sim tps=500]"),
            "typed": await call(client, "typed", question="Why?"),
            "talk": [await call(client, "chat", question=q, session=f"mcp-{MODE}") for q in ("One.", "Two.")],
            "wrong": await call(client, "qa", nonsense=1),
            "fails": await call(client, "fails", question="x"),
            "lm": await call(client, "qa", question="x [sim fault=500]"),
            "unknown": await unknown(client),
            "cancelled": await cancelled(client),
        }
        found["after"] = (await call(client, "qa", question="Still there?"))["error"]
    print(json.dumps(found))


anyio.run(main)
