"""A token bucket: so many units per second, with room for a burst."""

from __future__ import annotations

from dspy_live.sansio.checks import positive


class Bucket:
    """Holds up to ``capacity`` units and gains ``rate`` of them per second. It starts full.

    It may be overdrawn: a taker is told how long to wait until its share has really come in. So
    takers are served in the order in which they asked, without a queue.
    """

    __slots__ = ("_level", "_stamp", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = positive("rate", rate, "units per second")
        self.capacity = positive("capacity", capacity, "units")
        self._level = float(capacity)
        self._stamp = now

    def level(self, now: float) -> float:
        """Units in it at ``now``; below 0 when it is overdrawn."""
        self._fill(now)
        return self._level

    def wait(self, now: float, amount: float) -> float:
        """Seconds from ``now`` until ``amount`` could be taken without a debt; takes nothing."""
        self._fill(now)
        return max(0.0, (amount - self._level) / self.rate)

    def take(self, now: float, amount: float) -> float:
        """Take ``amount`` and return the seconds to wait until it is covered."""
        seconds = self.wait(now, amount)
        self._level -= amount
        return seconds

    def give_back(self, now: float, amount: float) -> None:
        """Put back what was taken and not used. The bucket never holds more than its capacity."""
        self._fill(now)
        self._level = min(self.capacity, self._level + amount)

    def _fill(self, now: float) -> None:
        if now > self._stamp:
            self._level = min(self.capacity, self._level + (now - self._stamp) * self.rate)
            self._stamp = now
