"""What a server knows of its LM: from its own runs, and from asking it now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dspy_live.core.errors import (
    CircuitOpen,
    ConfigurationError,
    LiveError,
    LMBadReply,
    LMFailed,
    LMRateLimited,
    LMRefused,
)

ASK_SECONDS = 5.0
"""Seconds that an LM has to answer that it is there."""

WAIT_SECONDS = 0.5
"""Seconds that a readiness check waits for that: balancers and Kubernetes give a check one second."""

_OF_ONE_REQUEST = (LMBadReply, LMRateLimited, LMRefused)


class LMWatch:
    """Remembers when the LM was last heard, and whether it answered.

    Without ``every``, only runs tell, and readiness does not depend on it. With it, readiness does, and then a run's
    failure is no proof, since it may be of its client's making: it has the LM asked anew. A run's success is one.

    Args:
        every: seconds after which what is known is too old, and the next readiness check has the LM asked.
        ask: returns where the LM is there, and raises where it is not.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a time without something to ask.
    """

    def __init__(self, every: float | None = None, ask: Callable[[], Awaitable[object]] | None = None) -> None:
        if every is not None and ask is None:
            raise ConfigurationError("ready_lm needs ask_lm, a coroutine function that asks the LM")
        self.every = every
        self._ask = ask
        self._status = "unknown"
        self._error = ""
        self._heard: float | None = None
        self._stale = True
        self._asking: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """False where readiness depends on the LM, and it is not known to answer."""
        return self.every is None or self._status == "answers"

    def run_ended(self, exc: BaseException | None) -> None:
        """Learn from a run that has asked the LM, and that ended so."""
        if exc is None:
            self._note("answers")
        elif isinstance(exc, (LMFailed, CircuitOpen)) and not isinstance(exc, _OF_ONE_REQUEST):
            self._stale = True
            if self.every is None:
                self._note("fails", exc.code)

    async def look(self) -> None:
        """Have the LM asked if what is known is too old, and wait a moment for it; it goes on after that."""
        if self.every is None:
            return
        if self._asking is None and (self._stale or self._age() > self.every):
            self._asking = asyncio.create_task(self._ask_now())
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=WAIT_SECONDS)

    def report(self) -> dict[str, Any]:
        """Return what is known, for the body of ``/health/ready``; ``heard_s`` is how many seconds ago it was."""
        found: dict[str, Any] = {"status": self._status, "heard_s": None}
        if self._heard is not None:
            found["heard_s"] = round(self._age(), 3)
        if self._error:
            found["error"] = self._error
        return found

    async def close(self) -> None:
        """Give up asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask_now(self) -> None:
        assert self._ask is not None
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await self._ask()
        except LiveError as exc:
            self._note("fails", exc.code)
        except Exception as exc:
            self._note("fails", "lm_timeout" if isinstance(exc, TimeoutError) else "lm_failed")
        else:
            self._note("answers")
        finally:
            self._asking = None

    def _note(self, status: str, error: str = "") -> None:
        self._status, self._error = status, error
        self._heard = time.monotonic()
        self._stale = False

    def _age(self) -> float:
        return time.monotonic() - (self._heard or 0.0)
