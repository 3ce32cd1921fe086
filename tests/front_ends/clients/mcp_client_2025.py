"""What MCP's Python client of 2025 makes of the server: ``python mcp_client_2025.py URL`` prints one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client

URL = sys.argv[1] + "/mcp"
SLOW = "Why? [sim tps=50 length=2000]"


async def main() -> None:
    async with streamablehttp_client(URL) as (read, write, session_id), ClientSession(read, write) as session:
        opened = await session.initialize()
        notes: list[Any] = []
        begun = anyio.Event()

        async def progress(done: float, total: float | None, message: str | None) -> None:
            notes.append([done, message])

        async def first(done: float, total: float | None, message: str | None) -> None:
            begun.set()

        tools = (await session.list_tools()).tools
        agent = await session.call_tool("agent", {"question": "Why? [sim tps=500]"}, progress_callback=progress)
        talk = [await session.call_tool("chat", {"question": q}) for q in ("Eins.", "Zwei.")]
        fails = await session.call_tool("fails", {"question": "x"})

        ended: list[str] = []

        async def ask() -> None:
            try:
                await session.call_tool("qa", {"question": SLOW}, progress_callback=first)
            except Exception as exc:
                ended.append(type(exc).__name__)
            else:
                ended.append("answered")

        async with anyio.create_task_group() as group:
            request = session._request_id
            group.start_soon(ask)
            await begun.wait()
            note = types.CancelledNotification(params=types.CancelledNotificationParams(requestId=request, reason="no"))
            await session.send_notification(types.ClientNotification(note))
        print(
            json.dumps(
                {
                    "version": opened.protocolVersion,
                    "session": session_id(),
                    "tools": [tool.name for tool in tools],
                    "agent": {"error": agent.isError, "structured": agent.structuredContent, "notes": notes},
                    "talk": [one.structuredContent for one in talk],
                    "fails": [fails.isError, [block.model_dump() for block in fails.content]],
                    "ended": ended,
                }
            )
        )


anyio.run(main)
