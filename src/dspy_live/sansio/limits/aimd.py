"""Additive increase, multiplicative decrease: how many calls at once a service can take (RFC 5681's idea)."""

from __future__ import annotations

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.checks import share, whole


class Aimd:
    """A limit that creeps up by one for each round of good answers and drops by a share on overload.

    Args:
        low: never below it, at least 1.
        high: never above it.
        start: where it begins; ``low`` by default.
        decrease: what it is multiplied with on overload, below 1.
    """

    __slots__ = ("_decreased_at", "_limit", "decrease", "high", "low")

    def __init__(self, low: int = 1, high: int = 1000, start: int | None = None, decrease: float = 0.7) -> None:
        self.low = whole("low", low)
        self.high = whole("high", high)
        first = whole("start", start if start is not None else low)
        if not low <= first <= high:
            raise ConfigurationError(f"low <= start <= high must hold; got {low}, {first}, {high}")
        if share("decrease", decrease) == 1:
            raise ConfigurationError("decrease must be below 1")
        self.decrease = decrease
        self._limit = float(first)
        self._decreased_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many calls may run at once now."""
        return int(self._limit)

    def good(self, in_flight: int) -> None:
        """A call that ran among ``in_flight`` has ended well.

        The limit rises by one per ``limit`` good calls, and only while at least half of it is in use: what
        was not tried proves nothing.
        """
        if in_flight * 2 >= self._limit:
            self._limit = min(float(self.high), self._limit + 1 / self._limit)

    def bad(self, now: float, began: float) -> bool:
        """A call that began at ``began`` met overload. True when the limit fell for it.

        Calls that were under way when it last fell do not make it fall again: they tell of the same overload.
        """
        if began < self._decreased_at:
            return False
        self._decreased_at = now
        self._limit = max(float(self.low), self._limit * self.decrease)
        return True
