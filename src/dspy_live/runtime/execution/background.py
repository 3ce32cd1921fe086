"""The process's own event loops, for callers that have none: one for LM I/O, one for whole runs.

The I/O loop runs no code of the user's, so that any thread may wait for it without the danger that
it waits for that thread in turn. The run loop is where a run lives whose front door is synchronous.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from dspy_live.runtime.forks import at_fork

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop loop where uvloop is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class BackgroundLoop:
    """An event loop on a daemon thread of its own, started when it is first needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._forked()
        at_fork(in_child=self._forked)

    def _forked(self) -> None:
        # Threads do not survive a fork, and the lock may have been held by one of them.
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop. A forked child gets a new one."""
        loop = self._loop
        return loop if loop is not None and not loop.is_closed() else self._start()

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                return self._loop
            loop = new_event_loop()
            ready = threading.Event()

            def run() -> None:
                asyncio.set_event_loop(loop)
                loop.call_soon(ready.set)
                loop.run_forever()

            threading.Thread(target=run, name=self._name, daemon=True).start()
            ready.wait()
            self._loop = loop
            return loop

    def submit(self, coro: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run ``coro`` on this loop; cancelling the future cancels it there."""
        return asyncio.run_coroutine_threadsafe(coro, self.loop)


io = BackgroundLoop("dspy-live-io")
runs = BackgroundLoop("dspy-live-runs")
