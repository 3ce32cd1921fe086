"""What one run used and how long it took, added up from its events."""

from __future__ import annotations

import time
from typing import Any

from dspy_live.core.events import Usage

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")


class RunTotals:
    """Adds up a run's usage. Times are seconds on the monotonic clock; ``tokens`` are those given to the client."""

    __slots__ = (
        "_sums",
        "began",
        "cached_calls",
        "cost",
        "estimated",
        "first",
        "lm_calls",
        "tokens",
        "truncated",
        "unpriced",
    )

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first: float | None = None
        self.tokens = 0
        self.lm_calls = 0
        self.cached_calls = 0
        self.unpriced = 0
        self.estimated = False
        self.truncated = False
        self.cost = 0.0
        self._sums = [0, 0, 0, 0, 0]

    def token(self) -> None:
        """Count a token that the client is given; the first one is timed."""
        if not self.tokens:
            self.first = time.perf_counter()
        self.tokens += 1

    def add(self, usage: Usage) -> None:
        """Count one LM call."""
        self.lm_calls += 1
        self.cached_calls += usage.cached
        self.estimated = self.estimated or usage.estimated
        self.truncated = self.truncated or usage.truncated
        if usage.cost is not None:
            self.cost += usage.cost
        elif not usage.cached:
            self.unpriced += 1
        for i, name in enumerate(_COUNTS):
            self._sums[i] += getattr(usage, name)

    @property
    def duration_ms(self) -> float:
        """Milliseconds since the run began."""
        return round((time.perf_counter() - self.began) * 1000, 3)

    @property
    def cached(self) -> bool:
        """True when the run asked an LM and every reply came from the cache."""
        return self.lm_calls > 0 and self.cached_calls == self.lm_calls

    def usage(self) -> dict[str, Any]:
        """Return the sums. ``cost`` is US dollars, ``None`` when the price of a call is unknown."""
        return {
            **dict(zip(_COUNTS, self._sums, strict=True)),
            "cost": None if self.unpriced else round(self.cost, 10),
            "lm_calls": self.lm_calls,
            "cached_calls": self.cached_calls,
            "estimated": self.estimated,
        }

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the ``run`` object of a reply."""
        return {"id": run_id, "usage": self.usage(), "cached": self.cached, "truncated": self.truncated}
