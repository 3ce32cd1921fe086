"""One timer for all who wait equally long: a server has thousands of clients, each with a time to act in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Patience(Generic[T]):
    """Lets each of many have the same time; the loop has one timer for all of them, set when it fires.

    Beginning and ending to wait are a dictionary's store and its removal. On the loop's thread only.

    Args:
        loop: the loop of the timer.
        over: called with one who has waited for the whole time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[T], None]) -> None:
        self._loop = loop
        self._over = over
        self._until: dict[T, float] = {}  # in the order of their ends, as all have the same time
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, one: T) -> bool:
        return one in self._until

    def start(self, one: T, seconds: float) -> None:
        """Let ``one``, who does not wait yet, wait for so many seconds at most: as many as those who wait already."""
        until = self._until[one] = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._tick)
        elif until < self._timer.when():  # of those before, who had more time, none waits any more
            self._timer.cancel()
            self._timer = self._loop.call_at(until, self._tick)

    def stop(self, one: T) -> None:
        """``one`` waits no more, if it did."""
        self._until.pop(one, None)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time() + 0.001  # a millisecond: loops round
        over = []
        for one, until in self._until.items():
            if until > now:
                self._timer = self._loop.call_at(until, self._tick)
                break
            over.append(one)
        for one in over:  # which may let it wait once more
            if self._until.pop(one, None) is not None:
                self._over(one)
