"""Why a run must stop, for all threads that work for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from dspy_live.core.errors import LiveError
from dspy_live.runtime.forks import process_lock

OnStop = Callable[[LiveError], object]

_lock = process_lock()
"""One for all signals, which hold it for some instructions: a run is a signal, and there are many."""


class StopSignal:
    """Set once, with a reason. It shows at once in every thread; callbacks run on the loop.

    It may be used on any thread; ``thread`` is the one that ``loop`` runs in.
    """

    __slots__ = ("_callbacks", "_loop", "_thread", "error", "guard")

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        self._loop = loop
        self._thread = thread
        self._callbacks: list[OnStop] = []
        self.guard: OnStop | None = None
        """Called before the callbacks. It is set on the loop's thread, which looks for an ``error`` after it."""
        self.error: LiveError | None = None
        """The reason, or ``None``."""

    def stop(self, error: LiveError) -> bool:
        """Stop, for ``error``. The first reason wins: False when there was one.

        On the loop's thread the callbacks have run when this returns, else they run soon.
        """
        with _lock:
            if self.error is not None:
                return False
            self.error = error
        if self._callbacks or self.guard is not None:
            self._tell_on_loop()
        return True

    def on_stop(self, callback: OnStop) -> None:
        """Call ``callback(error)`` once, on the loop, at the stop; soon if there was one already."""
        with _lock:
            self._callbacks.append(callback)
            late = self.error is not None
        if late:
            self._tell_on_loop()

    def forget(self, callback: OnStop) -> None:
        """Take a callback back; one that was called, or was never given, is none."""
        with _lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    @property
    def awaited(self) -> bool:
        """True where somebody has given a callback, beside the guard."""
        return bool(self._callbacks)

    def clear(self) -> None:
        """Forget the callbacks: they hold tasks, whose context holds the run, which holds this."""
        self.guard = None
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
            with _lock:
                callback, self.guard = self.guard, None
                if callback is None:
                    if not self._callbacks:
                        return
                    callback = self._callbacks.pop(0)
            try:
                callback(error)
            except Exception as exc:
                # One that fails must not keep the others from hearing of it.
                self._loop.call_exception_handler({"message": "a stop callback failed", "exception": exc})
