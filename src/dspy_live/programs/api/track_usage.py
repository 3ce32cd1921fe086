"""``track_usage``: what a block of code used, in place of ``dspy.track_usage``, and right in threads too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dspy_live.programs.internals import settings
from dspy_live.programs.run.usage_tracker import SharedUsageTracker


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
