"""A batch's progress bar: items, rate, cost and the time left; none where there is no terminal.

tqdm draws it, as it draws those of ``dspy.Parallel``: two libraries that both draw at the foot of one terminal would
overwrite each other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sized
from types import TracebackType
from typing import Any

import tqdm

from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.runtime.books.account import Account


class Progress:
    """Counts items, and draws nothing."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def done(self, *, failed: bool = False, resumed: bool = False) -> None:
        """Count one item that has ended; a ``resumed`` one was done by an earlier run."""


class Bar(Progress):
    """Draws a bar on standard error. Its cost is that of all LM calls of the account while it is open."""

    def __init__(self, total: int | None, account: Account) -> None:
        self._account = account
        self._total = total
        self._failures = 0
        self._cost = 0.0
        self._unpriced = False

    def __enter__(self) -> Bar:
        # smoothing=0: the rate is the mean since the start, which resumed items are not part of.
        options: Any = {"unit": "item", "smoothing": 0, "file": sys.stderr, **_size()}
        self._bar: Any = tqdm.tqdm(total=self._total, desc="batch", **options)
        self._stop = self._account.observe(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        self._bar.close()

    def done(self, *, failed: bool = False, resumed: bool = False) -> None:
        self._bar.initial += resumed
        if failed:
            self._failures += 1
            self._bar.set_description(f"batch ({self._failures} failed)", refresh=False)
        self._bar.set_postfix_str(f"${self._cost:.4f}{'+' if self._unpriced else ''}", refresh=False)
        self._bar.update()

    # As an observer of the account.

    def run_started(self, call: Call) -> None: ...
    def run_ended(self, record: RunRecord) -> None: ...

    def lm_call_ended(self, record: LMRecord) -> None:
        if record.cost is None:
            self._unpriced = True
        else:
            self._cost += record.cost


def _size() -> dict[str, Any]:
    """Return tqdm's options for the size: one for a terminal that says it has none, where tqdm would draw nothing."""
    try:
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):  # no terminal
        known = True
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}


def progress_for(wanted: bool | None, inputs: Any, account: Account) -> Progress:
    """Return a bar where it is wanted, or by default where standard error is a terminal."""
    if wanted is None:
        wanted = sys.stderr.isatty()
    if not wanted:
        return Progress()
    return Bar(len(inputs) if isinstance(inputs, Sized) else None, account)
