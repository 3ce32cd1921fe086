"""Says every now and then that this process lives: its shared runs are lost when it no longer does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from dspy_live.runtime.stores import line as shared
from dspy_live.runtime.stores.line import Exchange, Line
from dspy_live.server.runs.shared.scripts import BEAT

log = logging.getLogger("dspy_live.runs")


class Presence:
    """A party of the line that keeps a lease on this process's name, and knows whether the server answers.

    Args:
        line: the line to the server.
        prefix: the beginning of all keys.
        lease: seconds without a sign of life after which the others take the process for dead.
        forgotten: called when the server answers again, or has come back empty.
        where: the server's address, without its password, for the log.
    """

    def __init__(self, line: Line, prefix: str, lease: float, forgotten: Callable[[], None], where: str) -> None:
        self.down = False
        self._line, self._prefix, self._lease, self._where = line, prefix, lease, where
        self._forgotten = forgotten
        self._closed = False
        self._began = b""

    @property
    def key(self) -> str:
        """The key of the lease."""
        return f"{self._prefix}server:{self._line.holder}"

    def close(self) -> None:
        """Say nothing more: the lease may end."""
        self._closed = True

    def prepare(self, holder: str) -> Exchange | None:
        """Say that this process lives."""
        if self._closed:
            return None
        return Exchange(BEAT, f"{self._prefix}began", [self.key, int(self._lease * 1000)])

    def answered(self, answer: list[Any]) -> None:
        """Say so again in a third of the lease."""
        back, self.down = self.down, False
        if back:
            log.warning("the runs in %s are shared again", self._where)
        before, self._began = self._began, answer[0]
        if back or (before and before != self._began):
            self._forgotten()
        self._line.soon(self, self._lease / 3)

    def failed(self, error: Exception) -> None:
        """Try again soon; the runs go on."""
        if not self.down:
            self.down = True
            log.warning(
                "the store of runs at %s does not answer (%s: %s): runs go on, and other servers don't see them until "
                "it does",
                self._where,
                type(error).__name__,
                error,
            )
        self._line.soon(self, min(shared.REST, self._lease / 3))
