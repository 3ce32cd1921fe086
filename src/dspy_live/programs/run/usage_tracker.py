"""DSPy's usage tracker, right in threads too."""

from __future__ import annotations

import threading
from typing import Any

from dspy.utils.usage_tracker import UsageTracker as DspyUsageTracker


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
