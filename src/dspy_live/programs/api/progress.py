"""A batch's progress bar: items, rate, cost and the time left; quiet where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Sized
from types import TracebackType
from typing import Any

from dspy_live.core.usage import LMRecord
from dspy_live.runtime.books.account import Account


class Progress:
    """Counts what is done, and shows nothing."""

    def __init__(self) -> None:
        self.finished = 0
        self.failures = 0
        self.resumed = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def done(self, *, failed: bool = False, resumed: bool = False) -> None:
        """One item has ended."""
        self.finished += 1
        self.failures += failed
        self.resumed += resumed


class Bar(Progress):
    """The same, on a terminal. The cost is what LM calls of this process have cost meanwhile."""

    def __init__(self, total: int | None, account: Account) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._account = account
        self._cost = 0.0
        self._unpriced = False
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[spent]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("batch", total=total, rate="", spent="")

    def __enter__(self) -> Bar:
        self._stop = self._account.observe(self)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._stop()

    def done(self, *, failed: bool = False, resumed: bool = False) -> None:
        super().done(failed=failed, resumed=resumed)
        speed = self._bar.tasks[0].speed
        name = f"batch ({self.failures} failed)" if self.failures else "batch"
        spent = f"${self._cost:.4f}{'+' if self._unpriced else ''}"
        rate = f"{speed:.1f}/s" if speed else ""
        self._bar.update(self._task, advance=1, description=name, rate=rate, spent=spent)

    # As an observer of the account.

    def run_started(self, call: Any, program: str) -> None: ...
    def first_token(self, call: Any) -> None: ...
    def run_ended(self, call: Any, error: Any, duration: float, ttft: float | None) -> None: ...

    def lm_call_ended(self, record: LMRecord) -> None:
        if record.cost is None:
            self._unpriced = True
        else:
            self._cost += record.cost


def progress_for(wanted: bool | None, inputs: Any, account: Account) -> Progress:
    """Return a bar where it is wanted, or by default where stderr is a terminal."""
    if wanted is None:
        wanted = sys.stderr.isatty()
    if not wanted:
        return Progress()
    return Bar(len(inputs) if isinstance(inputs, Sized) else None, account)
