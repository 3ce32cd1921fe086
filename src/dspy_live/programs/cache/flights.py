"""Identical LM calls in flight at once: the first one asks the LM, and the others find its reply in the cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal


class Flights:
    """The calls that are looked up or asked now, by loop and cache key."""

    def __init__(self) -> None:
        self._flying: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Future[Literal["over", "left"]]] = {}

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait until no identical call of this loop is under way, then run the body: look up, ask, store.

        When the first caller is cancelled, the next one takes its place. When it fails, the others no longer wait for
        each other, so that a failing LM is not asked by one after the other. Cancelled while it waits, a call leaves
        the others as they are.
        """
        loop = asyncio.get_running_loop()
        while (flight := self._flying.get((loop, key))) is not None:
            await asyncio.wait([flight])
            if flight.result() == "over":
                yield
                return
        flight = self._flying[loop, key] = loop.create_future()
        outcome: Literal["over", "left"] = "left"
        try:
            yield
            outcome = "over"
        except Exception:
            outcome = "over"
            raise
        finally:
            del self._flying[loop, key]
            flight.set_result(outcome)
