"""The resumable runs of a server: those under way, those that can be read again, and the names of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_live.server.runs.resumable import Resumable

MOST_BYTES = 64 << 20
"""Bytes that are kept of all runs that are over: with the usual answer of some 20 KB, the last 2,500 runs."""

OVERHEAD = 6_000
"""Bytes that a run takes besides its frames, as measured with 10,000 short ones."""


class KeptRuns:
    """Finds a key's resumable runs, and forgets the oldest of those that are over where they take too much memory."""

    OVER = 4096

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._runs: dict[str, Resumable] = {}
        self._ended: dict[str, int] = {}
        self._bytes = 0
        self._over: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}

    def add(self, run: Resumable) -> None:
        """Keep a run."""
        self._runs[run.id] = run
        if run.name:
            self._names[run.key, run.name] = run.id
        if run.ended:
            self.ended(run)

    def get(self, run_id: str, key: str) -> Resumable | None:
        """Return a run of this key, if it is kept, by its id or by its client's name: of several, the newest."""
        run = self._runs.get(run_id) or self._runs.get(self._names.get((key, run_id), ""))
        return run if run is not None and run.key == key else None

    def knows(self, run_id: str, key: str) -> bool:
        """True for a run of this key that is kept, or was once."""
        return self.get(run_id, key) is not None or self.is_over(run_id, key)

    def is_over(self, run_id: str, key: str) -> bool:
        """True for a run of this key that was kept once and is forgotten."""
        return self._over.get(run_id) == key

    def ended(self, run: Resumable) -> None:
        """Count a run that is over, and forget the oldest ones that nobody reads, down to the bound."""
        if run.id not in self._runs or run.id in self._ended:
            return
        self._ended[run.id] = run.size + OVERHEAD
        self._bytes += run.size + OVERHEAD
        for one in self._oldest(self._bytes - self.most_bytes):
            one.forget()

    def _oldest(self, size: int) -> list[Resumable]:
        found = []
        for name, its_size in self._ended.items():  # in the order of their ends
            if size <= 0:
                break
            if not self._runs[name].is_read:
                found.append(self._runs[name])
                size -= its_size
        return found

    def forget(self, run: Resumable) -> None:
        """Drop a run's log; only its name is remembered, for some thousand runs."""
        if self._runs.pop(run.id, None) is not None:
            self._bytes -= self._ended.pop(run.id, 0)
            if self._names.get((run.key, run.name)) == run.id:
                del self._names[run.key, run.name]
            self._over[run.id] = run.key
            if len(self._over) > self.OVER:
                del self._over[next(iter(self._over))]
