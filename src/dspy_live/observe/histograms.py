"""Histograms of seconds by name, for Prometheus: counted in a microsecond, put together when they are read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""The bounds, for durations from a cached answer to a long agent."""


class Histogram:
    """How many durations were up to each bound, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound with the count of durations up to it, as Prometheus has them."""
        below, result = 0, []
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            below += count
            result.append((bound, float(below)))
        return result


class Histograms:
    """Histograms by name; past ``most`` names, further ones share one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[str, Histogram] = {}

    def add(self, name: str, seconds: float) -> str:
        """Count one duration; return the name that it is counted under."""
        histogram = self._of.get(name)
        if histogram is None:
            name = series(self._of, name, self._most)
            histogram = self._of.setdefault(name, Histogram())
        histogram.counts[bisect_left(SECONDS, seconds)] += 1
        histogram.total += seconds
        return name

    def items(self) -> Iterable[tuple[str, Histogram]]:
        """Return the names and their histograms."""
        return self._of.items()


def series(known: Mapping[str, Any], name: str, most: int) -> str:
    """Return ``name``, or ``"(other)"`` for one that would be more than the most that get a series of their own."""
    return name if name in known or len(known) < most else "(other)"
