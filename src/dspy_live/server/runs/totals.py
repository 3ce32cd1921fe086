"""What one run used and how long it took, added up from its events."""

from __future__ import annotations

import time
from typing import Any

from dspy_live.core.events import Usage


def milliseconds_since(began: float) -> float:
    """Return the milliseconds since ``time.perf_counter()`` was ``began``, to the microsecond."""
    return int((time.perf_counter() - began) * 1e6 + 0.5) / 1e3  # round() of a float takes ten times as long


class RunTotals:
    """Adds up a run's usage. Times are seconds on the monotonic clock; ``tokens`` are pieces given to the client."""

    __slots__ = (
        "began",
        "cached_calls",
        "cached_tokens",
        "completion_tokens",
        "cost",
        "estimated",
        "first",
        "lm_calls",
        "prompt_tokens",
        "reasoning_tokens",
        "tokens",
        "total_tokens",
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
        self.prompt_tokens = self.completion_tokens = self.total_tokens = 0
        self.cached_tokens = self.reasoning_tokens = 0

    def token(self) -> None:
        """Count a token that the client is given; the first one is timed."""
        if not self.tokens:
            self.first_token()
        self.tokens += 1

    def first_token(self) -> None:
        """Note the time, once."""
        if self.first is None:
            self.first = time.perf_counter()

    def add(self, usage: Usage) -> None:
        """Count one LM call."""
        self.lm_calls += 1
        if usage.cached:
            self.cached_calls += 1
        if usage.estimated:
            self.estimated = True
        if usage.truncated:
            self.truncated = True
        if usage.cost is not None:
            self.cost += usage.cost
        elif not usage.cached:
            self.unpriced += 1
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.total_tokens += usage.total_tokens
        if usage.cached_tokens:
            self.cached_tokens += usage.cached_tokens
        if usage.reasoning_tokens:
            self.reasoning_tokens += usage.reasoning_tokens

    @property
    def duration_ms(self) -> float:
        """Milliseconds since the run began."""
        return milliseconds_since(self.began)

    @property
    def cached(self) -> bool:
        """True when the run asked an LM and every reply came from the cache."""
        return self.lm_calls > 0 and self.cached_calls == self.lm_calls

    def usage(self) -> dict[str, Any]:
        """Return the sums. ``cost`` is US dollars, ``None`` when the price of a call is unknown."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cost": None if self.unpriced else round(self.cost, 10),
            "lm_calls": self.lm_calls,
            "cached_calls": self.cached_calls,
            "estimated": self.estimated,
        }

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the ``run`` object of a reply."""
        return {"id": run_id, "usage": self.usage(), "cached": self.cached, "truncated": self.truncated}
