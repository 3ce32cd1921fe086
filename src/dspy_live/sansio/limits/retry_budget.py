"""How many retries all calls together may make: a share of the calls, so that retries never become the load."""

from __future__ import annotations

from dspy_live.sansio.checks import not_negative, positive
from dspy_live.sansio.limits.bucket import Bucket


class RetryBudget:
    """Every call pays in ``ratio`` of a retry, and every retry takes one out.

    Args:
        ratio: retries per call in the long run; 0.2 allows one retry for five calls.
        per_second: retries that are allowed without any call having paid in, for times of little load.
        most: the most that can be saved up.
    """

    __slots__ = ("_bucket", "_ratio")

    def __init__(self, now: float, ratio: float = 0.2, per_second: float = 1.0, most: float = 10.0) -> None:
        self._ratio = not_negative("ratio", ratio)
        self._bucket = Bucket(positive("per_second", per_second), positive("most", most), now)

    def deposit(self, now: float) -> None:
        """A call begins."""
        self._bucket.give_back(now, self._ratio)

    def withdraw(self, now: float) -> bool:
        """A retry wants to begin. False when the budget is spent."""
        if self._bucket.level(now) < 1:
            return False
        self._bucket.take(now, 1)
        return True

    def level(self, now: float) -> float:
        """Retries that are left at ``now``."""
        return self._bucket.level(now)
