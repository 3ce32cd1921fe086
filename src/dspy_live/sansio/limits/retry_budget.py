"""How many retries all calls together may make: as many as calls succeed, so that retries never become the load."""

from __future__ import annotations

from dspy_live.sansio.checks import not_negative, positive
from dspy_live.sansio.limits.bucket import Bucket


class RetryBudget:
    """Every call that succeeds pays in ``ratio`` of a retry, and every retry takes one out. It starts full.

    Successes pay, as in gRPC's retry throttling (proposal A6) and the AWS SDKs' standard mode: while everything fails
    nothing comes in, and what is left after the savings is ``per_second``.

    Args:
        ratio: retries per call that succeeds. With 1, three tries of each call can be paid up to 54 % of faults
            (where ``f + f**2 == 1 - f**3``).
        per_second: retries that come in whatever happens, for times of little load.
        most: the most that can be saved up, and the retries that there are at the start. It is what a burst of calls
            can draw on before the first of them has succeeded.
    """

    __slots__ = ("_bucket", "_ratio")

    def __init__(self, now: float, ratio: float = 1.0, per_second: float = 1.0, most: float = 250.0) -> None:
        self._ratio = not_negative("ratio", ratio)
        self._bucket = Bucket(positive("per_second", per_second), positive("most", most), now)

    def deposit(self, now: float) -> None:
        """A call has succeeded."""
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
