"""A circuit breaker as a state machine: closed, open, half open."""

from __future__ import annotations

from collections import deque
from typing import Literal, TypeAlias

from dspy_live.sansio.checks import positive, share, whole

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]
_ROUNDING = 1e-9
"""Seconds. Less than this is left by rounding alone: who waits as long as was said is let through."""
SLICES = 10
"""The window is counted in tenths: old results leave it in ten steps, and memory is constant."""


class Breaker:
    """Opens when too large a share of the calls in a window failed; then tries a few before it closes.

    Args:
        failures: the share of failed calls at which it opens, above 0 and up to 1.
        minimum: calls that the window must hold before a share means anything.
        window: seconds that are looked back on.
        open_for: seconds that it stays open.
        probes: calls that are let through when that time is over; all must succeed for it to close.
    """

    __slots__ = ("_admitted", "_good", "_opened_at", "_slices", "_state", "failures", "minimum", "open_for",
                 "opened", "probes", "window")  # fmt: skip

    def __init__(
        self,
        failures: float = 0.5,
        minimum: int = 20,
        window: float = 30.0,
        open_for: float = 10.0,
        probes: int = 1,
    ) -> None:
        self.failures = share("failures", failures)
        self.minimum = whole("minimum", minimum, "calls")
        self.window = positive("window", window, "seconds")
        self.open_for = positive("open_for", open_for, "seconds")
        self.probes = whole("probes", probes, "calls")
        self.opened = 0
        self._state: BreakerState = "closed"
        self._opened_at = 0.0
        self._admitted = 0
        self._good = 0
        self._slices: deque[list[float]] = deque()

    @property
    def state(self) -> BreakerState:
        return self._state

    def counts(self, now: float) -> tuple[int, int]:
        """Calls and failures in the window that ends at ``now``."""
        while self._slices and self._slices[0][0] <= now - self.window:
            self._slices.popleft()
        return int(sum(s[1] for s in self._slices)), int(sum(s[2] for s in self._slices))

    def admit(self, now: float) -> float | None:
        """Ask to make a call. ``None`` lets it through; else the seconds after which to ask again.

        Who was let through must say how it went: :meth:`record`, or :meth:`abandon`.
        """
        if self._state == "open":
            left = self.open_for - (now - self._opened_at)  # in this order it is never above open_for, rounded or not
            if left > _ROUNDING:
                return left
            self._state = "half_open"
            self._admitted = self._good = 0
        if self._state == "half_open":
            if self._admitted >= self.probes:
                return self.open_for
            self._admitted += 1
        return None

    def record(self, now: float, ok: bool, began: float) -> None:
        """A call that was let through at ``began`` has ended, well or not."""
        if self._state == "open" or began < self._opened_at:
            return  # It began before the breaker opened and says nothing new.
        if self._state == "half_open":
            self._probed(now, ok)
            return
        self._count(now, ok)
        calls, failed = self.counts(now)
        if not ok and calls >= self.minimum and failed >= self.failures * calls:
            self._open(now)

    def abandon(self, began: float) -> None:
        """A call that was let through at ``began`` was cancelled by its caller: it proves nothing."""
        if self._state == "half_open" and began >= self._opened_at:
            self._admitted -= 1

    def _probed(self, now: float, ok: bool) -> None:
        if not ok:
            self._open(now)
            return
        self._good += 1
        if self._good >= self.probes:
            self._state = "closed"
            self._slices.clear()

    def _open(self, now: float) -> None:
        self._state = "open"
        self._opened_at = now
        self.opened += 1
        self._slices.clear()

    def _count(self, now: float, ok: bool) -> None:
        width = self.window / SLICES
        if not self._slices or self._slices[-1][0] + width <= now:
            self._slices.append([now, 0, 0])
        self._slices[-1][1] += 1
        self._slices[-1][2] += not ok
