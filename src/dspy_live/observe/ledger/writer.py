"""One thread that writes the rows of runs, many at a time, so that no run waits for a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from dspy_live.observe.ledger.backend import Backend, Row
from dspy_live.runtime.forks import at_fork

logger = logging.getLogger("dspy_live.ledger")

INTERVAL = 0.25
"""Seconds between two batches: a killed process loses the rows of that time at most."""
BATCH = 2000
MAX_WAITING = 200_000
"""Rows that may wait while the database does not answer, about 100 MB; after that the newest are not kept."""
TIDY_INTERVAL = 3600.0
"""Seconds between two removals of old rows."""
_RETRY = 1.0


class Writer:
    """Takes rows from any thread without waiting and writes them in order.

    While the database fails, rows wait and are tried again every second; the first failure is logged as a warning.
    Of too many that wait the newest are dropped. :attr:`lost` counts the rows that were not kept.

    Args:
        backend: the database.
        tidy: called in the writer's thread after the first rows are written, and at most once an hour from then on.
    """

    def __init__(self, backend: Backend, tidy: Callable[[], object] | None = None) -> None:
        self._backend = backend
        self._tidy = tidy
        self._tidy_next = 0.0
        self._runs: deque[Row] = deque()
        self._calls: deque[Row] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._asleep = True
        self._idle = threading.Condition()
        self._taken = 0
        self._settled = 0
        self._failing = False
        self._again: tuple[int, int] | None = None
        self.lost = 0
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        at_fork(before=backend.pause, in_parent=backend.resume, in_child=self._forked)

    def run(self, row: Row) -> None:
        """Take a row of ``runs``."""
        self._runs.append(row)
        if self._asleep:
            self._wake_up()

    def call(self, row: Row) -> None:
        """Take a row of ``lm_calls``."""
        self._calls.append(row)
        if self._asleep:
            self._wake_up()

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._runs) + len(self._calls)

    def flush(self, timeout: float | None = 10.0) -> bool:
        """Wait until everything that was taken before is written. Returns false when that takes over ``timeout`` s."""
        if self._thread is None or not self._thread.is_alive():
            return not self.waiting
        with self._idle:
            self._taken += 1
            ticket = self._taken
            self._wake.set()
            return self._idle.wait_for(lambda: self._settled >= ticket, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write the rows that wait, for at most ``timeout`` seconds, and end the thread."""
        self.flush(timeout)
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _forked(self) -> None:
        # The thread and its rows are the parent's; the child begins with a database of its own.
        self._runs.clear()
        self._calls.clear()
        self._thread, self._asleep, self._failing, self._again = None, True, False, None
        self._wake, self._idle, self._start_lock = threading.Event(), threading.Condition(), threading.Lock()
        self._backend.reopen()

    def _wake_up(self) -> None:
        self._asleep = False
        self._wake.set()
        with self._start_lock:
            if self._thread is None and not self._closing:
                thread = threading.Thread(target=self._work, name="dspy-live-ledger", daemon=True)
                thread.start()
                self._thread = thread

    def _work(self) -> None:
        while not self._closing:
            if not self._runs and not self._calls:
                self._asleep = True
                if not self._runs and not self._calls:  # else a row came while the flag was still False
                    self._wake.wait()
                self._asleep = False
            ticket = self._taken
            if not self._closing and (self._failing or self._settled >= ticket):  # let a batch gather
                self._wake.clear()
                self._wake.wait(_RETRY if self._failing else INTERVAL)
            self._wake.clear()
            ticket = self._taken
            while (self._runs or self._calls) and self._write_batch():
                pass
            if not self._failing and self._tidy is not None and time.monotonic() >= self._tidy_next:
                self._tidy_up(self._tidy)
            if not self._failing and self._settled < ticket:
                with self._idle:
                    self._settled = ticket
                    self._idle.notify_all()

    def _tidy_up(self, tidy: Callable[[], object]) -> None:
        self._tidy_next = time.monotonic() + TIDY_INTERVAL
        try:
            tidy()
        except OSError as exc:
            logger.warning("old rows of the ledger can't be removed now, and are tried again in an hour: %s", exc)

    def _write_batch(self) -> bool:
        # A batch that failed is tried again as it was: its commit may have succeeded without the answer to it.
        sizes = self._again or (BATCH, BATCH)
        runs = [self._runs[i] for i in range(min(sizes[0], len(self._runs)))]
        calls = [self._calls[i] for i in range(min(sizes[1], len(self._calls)))]
        try:
            self._write(runs, calls)
        except Exception as exc:
            self._again = len(runs), len(calls)
            self._failed(exc)
            return False
        self._again = None
        for _ in runs:
            self._runs.popleft()
        for _ in calls:
            self._calls.popleft()
        if self._failing:
            self._failing = False
            logger.warning("%s is written again; %d rows are lost in all", self._backend.name, self.lost)
        return True

    def _write(self, runs: list[Row], calls: list[Row]) -> None:
        try:
            self._backend.write(runs, calls)
        except OSError:
            raise
        except Exception as exc:
            # Something in one row can't be written at all; it must not keep back the others.
            for table, rows in (("runs", runs), ("lm_calls", calls)):
                for row in rows:
                    self._write_one(table, row, exc)

    def _write_one(self, table: str, row: Row, why: Exception) -> None:
        try:
            self._backend.write([row] if table == "runs" else [], [row] if table == "lm_calls" else [])
        except OSError:
            raise
        except Exception as exc:
            self.lost += 1
            logger.warning("a row of %s can't be written and is left out: %s", table, exc or why)

    def _failed(self, exc: Exception) -> None:
        if not self._failing:
            self._failing = True
            logger.warning("the ledger can't be written and waits: %s", exc)
        for rows in (self._runs, self._calls):
            while len(rows) > MAX_WAITING // 2:
                rows.pop()
                self.lost += 1
