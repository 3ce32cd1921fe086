"""An application for the servers of tests/server/test_asgi_servers.py, each of which imports it by this name."""

from __future__ import annotations

import asyncio

from tests.server.support import Tape, qa

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Started
from dspy_live.server import create_app


async def script(call: Call, tape: Tape) -> None:
    """Answer with the question; ``endless`` has no end, ``slowly`` has its words one by one."""
    question = call.inputs["question"]
    await tape.push(Started(call.id))
    if question == "endless":
        await tape.tokens("some words")
        await asyncio.Event().wait()
    await tape.tokens(f"You asked: {question}", pause=0.005 if question == "slowly" else 0)
    await tape.push(Predicted({"answer": f"You asked: {question}"}))


app = create_app(qa(script), max_body=1_000_000)
