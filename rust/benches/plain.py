"""What the plain patterns call: the same program, over the same LM, as somebody would write it without the crate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import dspy

import dspy_live

program = dspy.Predict("question -> answer")


def configure(url: str) -> None:
    """Ask the simulated LM at ``url``."""
    lm = dspy_live.LM("openai/simulated", api_base=url, api_key="any", cache=False)
    dspy.configure(lm=lm, disable_history=True)


def start_loop() -> asyncio.AbstractEventLoop:
    """Run a loop on a thread of its own, as the asynchronous pattern needs it."""
    import uvloop

    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def tokens(question: str) -> Iterator[str]:
    """The tokens of one call, for a thread that blocks."""
    for item in dspy_live.streamify(program, async_streaming=False)(question=question):
        if isinstance(item, str):
            yield str(item)


async def atokens(question: str) -> AsyncIterator[str]:
    """The tokens of one call, for a loop."""
    async for item in dspy_live.streamify(program)(question=question):
        if isinstance(item, str):
            yield str(item)


class Tokens:
    """The tokens of one call, one awaitable each; an empty text is the end."""

    def __init__(self, question: str) -> None:
        self._tokens = atokens(question)

    async def next(self) -> str | None:
        """The next token, ``None`` at the end."""
        return await anext(self._tokens, None)
