"""Why a run must stop, for all threads that work for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from dspy_live.core.errors import LiveError, Stop

OnStop = Callable[[LiveError], object]


class StopSignal:
    """Set once, with a reason. It shows at once in every thread; callbacks run on the loop.

    Make it on the loop's own thread; everything else may be called on any thread.
    """

    __slots__ = ("_callbacks", "_lock", "_loop", "_next", "_thread", "error")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._callbacks: dict[int, OnStop] = {}
        self._next = 0
        self.error: LiveError | None = None
        """The reason, or ``None``."""

    def stop(self, error: LiveError) -> bool:
        """Stop, for ``error``. The first reason wins: False when there was one.

        On the loop's thread the callbacks have run when this returns, else they run soon.
        """
        with self._lock:
            if self.error is not None:
                return False
            self.error = error
        if self._callbacks:
            self._tell_on_loop()
        return True

    def check(self) -> None:
        """Raise :class:`~dspy_live.core.errors.Stop` with the reason when there is one."""
        if self.error is not None:
            raise Stop(self.error)

    def on_stop(self, callback: OnStop) -> Callable[[], None]:
        """Call ``callback(error)`` once, on the loop, at the stop; soon if there was one already.

        Returns a function that takes the callback back.
        """
        with self._lock:
            number = self._next
            self._next += 1
            self._callbacks[number] = callback
            late = self.error is not None
        if late:
            self._tell_on_loop()
        return lambda: self._callbacks.pop(number, None) and None

    def clear(self) -> None:
        """Forget the callbacks: they hold tasks, whose context holds the run, which holds this."""
        self._callbacks.clear()

    def _tell_on_loop(self) -> None:
        if threading.get_ident() == self._thread:
            self._tell()
            return
        with suppress(RuntimeError):  # The loop is closed: nothing of the run is running any more.
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        error = self.error
        assert error is not None
        while True:
            with self._lock:
                if not self._callbacks:
                    return
                callback = self._callbacks.pop(next(iter(self._callbacks)))
            try:
                callback(error)
            except Exception as exc:
                # One that fails must not keep the others from hearing of it.
                self._loop.call_exception_handler({"message": "a stop callback failed", "exception": exc})
