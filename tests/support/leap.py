"""Let a deadline come when the test wants it: not before what must happen first, however late that is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class _Ahead:
    """A loop's clock, so many seconds ahead."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self.seconds = 0.0

    def __call__(self) -> float:
        return self._time() + self.seconds


def leap(seconds: float) -> None:
    """Set the running loop's clock ahead: each of its timers that falls due within ``seconds`` is due now.

    Code that has kept ``loop.time`` from before the loop's first leap goes by the old clock: begin with ``leap(0)``.
    """
    loop = asyncio.get_running_loop()
    clock = loop.time
    if not isinstance(clock, _Ahead):
        clock = loop.time = _Ahead(clock)  # type: ignore[method-assign]
    clock.seconds += seconds
