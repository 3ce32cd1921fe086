"""``track_usage``: what a block of code used, in place of ``dspy.track_usage``, and right in threads too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dspy.utils.usage_tracker import UsageTracker as DspyUsageTracker

from dspy_live.programs.internals import settings


class SharedUsageTracker(DspyUsageTracker):
    """DSPy's tracker, one for all threads: ``dspy.Parallel`` makes a deep copy for each of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> SharedUsageTracker:
        return self

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Book one LM call."""
        with self._lock:
            super().add_usage(lm, usage_entry)

    def get_total_tokens(self) -> dict[str, dict[str, Any]]:
        """Return the counts by LM."""
        with self._lock:
            totals: dict[str, dict[str, Any]] = super().get_total_tokens()
            return totals


@contextmanager
def track_usage() -> Iterator[SharedUsageTracker]:
    """Count what the LM calls of the block use; yields a tracker with ``get_total_tokens()``.

    A block inside another is counted in both, at once. Threads that DSPy or this package start are counted too.
    """
    parent = settings.usage_tracker
    tracker = _Nested(parent) if parent is not None else SharedUsageTracker()
    with settings.context(usage_tracker=tracker):
        yield tracker


class _Nested(SharedUsageTracker):
    def __init__(self, parent: Any) -> None:
        super().__init__()
        self._parent = parent

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        super().add_usage(lm, usage_entry)
        self._parent.add_usage(lm, usage_entry)
