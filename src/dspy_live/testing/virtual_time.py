"""An event loop whose time passes when nothing else is left to do: an hour's wait takes a millisecond."""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

PATIENCE = 5.0
"""Real seconds that the loop waits for a thread or a socket when no timer is left, before it calls it a deadlock."""


class Deadlock(RuntimeError):
    """Nothing is ready, no timer is set, and nothing came from outside either."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that jumps to its next timer as soon as nothing is ready.

    ``loop.time()`` starts at 0 and counts virtual seconds; ``asyncio.sleep``, timeouts and
    :class:`~dspy_live.runtime.scope.Scope` all follow. Sockets and threads work, in real time, which
    does not count. Not for code that waits for a thread *and* a timer at once: the timer would always win.

    Args:
        patience: real seconds without anything to do before :class:`Deadlock` is raised.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._virtual = _JumpingSelector(patience)
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual.now

    def block(self, seconds: float) -> None:
        """Let time pass as if the code that runs now had blocked the loop for so long."""
        self._virtual.now += seconds


class _JumpingSelector(selectors.BaseSelector):
    def __init__(self, patience: float) -> None:
        self._inner = selectors.DefaultSelector()
        self._patience = patience
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._inner.select(0)
        if ready:
            return ready
        if timeout is None:
            ready = self._inner.select(self._patience)
            if not ready:
                raise Deadlock(f"nothing is ready, no timer is set, and nothing came within {self._patience:g} s")
        elif timeout > 0:
            self.now += timeout
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a fresh :class:`VirtualLoop` and return its result.

    Raises its failure, and :class:`Deadlock` when it can never end.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an ``async def`` test a plain one that runs on a :class:`VirtualLoop`; needs no pytest plugin."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    if inspect.iscoroutinefunction(run):  # pragma: no cover - a plugin would await it a second time
        raise TypeError("virtual_time() must be the outermost decorator")
    return run
