"""How long an endpoint may be silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; ``None`` waits for ever.

    Args:
        connect: until the connection stands, DNS, proxy and TLS included.
        first_byte: from the sent request to the first byte of the reply's *body*: many LM servers
            send the head at once and think afterwards.
        idle: the longest silence within the body. Time while the exchange is paused does not count.
    """

    connect: float | None = 10.0
    first_byte: float | None = None
    idle: float | None = None


class Silence:
    """Watch for silence with one timer, set again only when it fires and not for each piece that comes.

    ``on_timeout`` is called with true for the first byte's timeout and false for the idle one, and with the limit.
    """

    __slots__ = ("_begun", "_elsewhere", "_loop", "_on_timeout", "_since", "_timeouts", "_timer", "_watching")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeouts: Timeouts, on_timeout: Callable[[bool, float], None]
    ) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._on_timeout = on_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._begun = False
        self._watching = False
        self._elsewhere: Callable[[], float] | None = None

    def start(self) -> None:
        """The request was sent, or reading goes on: silence begins now."""
        self._watching = True
        self._since = self._loop.time()
        if self._timer is None:
            self._arm(self._limit)

    def heard(self) -> None:
        """A piece of the body came."""
        if self._begun:
            self._since = self._loop.time()
            return
        self._begun = True
        if self._watching:
            self.stop()
            self.start()

    def heard_elsewhere(self, heard: Callable[[], float]) -> None:
        """What comes is not told here for now; ``heard`` returns when something came last, by the loop's clock."""
        self._elsewhere = heard

    def heard_at(self, when: float) -> None:
        """What comes is told here again; something came last at ``when``."""
        self._elsewhere = None
        self._since = max(self._since, when)

    def stop(self) -> None:
        """Watch no more, until :meth:`start`."""
        self._watching = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _limit(self) -> float | None:
        return self._timeouts.idle if self._begun else self._timeouts.first_byte

    def _arm(self, limit: float | None) -> None:
        if limit is not None:
            self._timer = self._loop.call_at(self._since + limit, self._tick)

    def _tick(self) -> None:
        self._timer = None
        limit = self._limit
        if limit is None:
            return
        if self._elsewhere is not None:
            self._since = max(self._since, self._elsewhere())
        if self._since + limit > self._loop.time() + 0.001:  # a millisecond: loops round
            self._arm(limit)
        else:
            self._on_timeout(not self._begun, limit)
