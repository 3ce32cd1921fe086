"""Talk to a running server over one WebSocket: a plain question, answered token by token, then several runs at once.

make serve                                # in another terminal
python examples/websocket_client.py
"""

from __future__ import annotations

import asyncio
import sys

import websockets

from dspy_live.client import AsyncClient

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"


async def plain() -> None:
    """The plain protocol needs no library of ours: a text frame asks, text frames answer, ``[DONE]`` ends."""
    async with websockets.connect(URL.replace("http", "ws", 1) + "/ws") as socket:
        await socket.send("Why do rivers bend?")
        async for token in socket:
            if token == "[DONE]":
                break
            print(token, end="", flush=True)
        print()


async def typed() -> None:
    """The typed protocol runs several at once on one socket, each with its own events."""

    async def ask(question: str) -> str:
        async with socket.start(question=question) as run:
            return (await run.result()).answer

    async with AsyncClient(URL).socket() as socket:
        answers = await asyncio.gather(*(ask(f"What is {n} squared?") for n in range(5)))
    print(f"{len(answers)} answers over one socket")


if __name__ == "__main__":
    asyncio.run(plain())
    asyncio.run(typed())
