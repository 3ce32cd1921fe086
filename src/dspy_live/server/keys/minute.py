"""The runs and tokens of a key in the last minute."""

from __future__ import annotations

import math
import threading

from dspy_live.core.usage import LMRecord
from dspy_live.layers._now import loop_now
from dspy_live.sansio.limits.window import Window

MINUTE = 60.0


class Minute:
    """Counts units in a sliding minute; it refuses and never waits.

    Args:
        limit: units in any 60 seconds. Below 1, one in ``60 / limit`` seconds.
    """

    __slots__ = ("_lock", "_pending", "_window", "limit")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._window = Window(limit, MINUTE) if limit >= 1 else Window(1.0, MINUTE / limit)
        self._pending = 0.0
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Return the seconds until there is room for one more; 0 where there is."""
        with self._lock:
            now = loop_now()
            return max(0.0, self._window.plan(now, 1.0) - now)

    def add(self, amount: float, age: float = 0.0) -> None:
        """Count units that were used ``age`` seconds ago. Amounts with an age come first, the oldest first."""
        with self._lock:
            now = loop_now()
            if age:
                self._window.take(now - age, amount)
                return
            self._window.add(now, amount)
            self._pending += amount

    def left(self) -> int:
        """Return the units that may still be used now."""
        with self._lock:
            return max(0, math.floor(self._window.left(loop_now()) + 1e-6))

    def reset(self) -> float:
        """Return the seconds until all units are there again."""
        with self._lock:
            now = loop_now()
            return max(0.0, self._window.plan(now, self._window.limit) - now)

    def take(self) -> float:
        """Return the units since the last call, to be written down."""
        with self._lock:
            taken, self._pending = self._pending, 0.0
            return taken


class TokenMeter:
    """Counts the tokens of a key's LM calls, as a meter of each of its runs."""

    __slots__ = ("_minute",)

    def __init__(self, minute: Minute) -> None:
        self._minute = minute

    def check(self) -> None:
        """Refuse nothing: a run that has begun goes on."""

    def record(self, record: LMRecord) -> None:
        """Count one exchange; what came from the cache is free."""
        if record.cache != "hit" and record.usage.total_tokens:
            self._minute.add(record.usage.total_tokens)
