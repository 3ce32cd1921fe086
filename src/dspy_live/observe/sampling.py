"""Which runs get spans: so many a second, so many failed ones a second, and all whose callers trace them."""

from __future__ import annotations

import logging
import math
import threading
import time

from opentelemetry import trace
from opentelemetry.context import Context

from dspy_live.sansio.limits.bucket import Bucket

logger = logging.getLogger("dspy_live.tracing")


class Share:
    """So many runs a second, and as many at once after a quiet second.

    Args:
        per_second: the most that are traced each second, and likewise of the failed ones; ``math.inf`` for all.

    ``left_out`` counts the others. The first of them is logged.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.left_out = 0
        self._lock = threading.Lock()
        self._buckets: dict[bool, Bucket] = {}
        if not math.isinf(per_second):
            now, room = time.monotonic(), max(1.0, per_second)
            self._buckets = {failed: Bucket(per_second, room, now) for failed in (False, True)}

    def take(self, parent: Context, *, failed: bool = False) -> bool:
        """Return True for a run that is to be traced; one in a sampled trace always is: its caller has decided."""
        if not self._buckets or _is_sampled(parent):
            return True
        with self._lock:
            now = time.monotonic()
            if self._buckets[failed].level(now) >= 1:
                self._buckets[failed].take(now, 1)
                return True
        return False

    def give_back(self, parent: Context) -> None:
        """Take back what :meth:`take` has counted for a run that the provider's own sampler leaves out."""
        if self._buckets and not _is_sampled(parent):
            with self._lock:
                self._buckets[False].give_back(time.monotonic(), 1)

    def leave_out(self) -> None:
        """Count one run that is not traced."""
        with self._lock:
            self.left_out += 1
            first = self.left_out == 1
        if first:
            logger.warning(
                "more than %g runs a second: further ones of that second are not traced (metrics, usage and the ledger "
                "have them all)", self.per_second,
            )  # fmt: skip


def _is_sampled(parent: Context) -> bool:
    return trace.get_current_span(parent).get_span_context().trace_flags.sampled
