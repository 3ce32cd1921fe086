"""What a batch says at its end: how many rows, and why some of them failed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_live.programs.api.batch import BatchItem

_MESSAGE = 200
"""Characters of a failure's message."""


class Summary:
    """Counts rows, and failures by their kind."""

    def __init__(self) -> None:
        self.rows = 0
        self.failed = 0
        self._recorded = 0
        self._kinds: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, item: BatchItem) -> None:
        """Count one row."""
        self.rows += 1
        if item.error is None:
            return
        self.failed += 1
        self._recorded += item.resumed
        self._kinds[item.error.kind] += 1
        if item.error.kind not in self._first:
            words = " ".join(item.error.message.split())
            shown = words if len(words) <= _MESSAGE else words[: _MESSAGE - 1] + "…"
            self._first[item.error.kind] = f"row {item.index}: {shown}"

    def text(self, ended: str = "", left_in: Path | None = None) -> str:
        """Return the summary.

        Args:
            ended: why the batch ended before its last row; empty where it did not.
            left_in: where the rows of such a batch are, if they are not in its output.
        """
        early = f"; ended early: {ended}" if ended else ""
        lines = [f"dspy-live: {self.rows} rows, {self.failed} failed{early}"]
        for kind, count in self._kinds.most_common():
            lines.append(f"  {count} {kind}, first in {self._first[kind]}")
        if self._recorded:
            lines.append(f"  {self._recorded} of them failed in an earlier run; --retry-failed asks for them again")
        if left_in is not None:
            lines.append(f"  the output is left as it was, and these rows are in {left_in}")
        return "\n".join(lines)
