"""Where shared runs are kept, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass

from dspy_live.server.encoders.json import dumps

REFRESH = 60.0
"""Seconds after which a run under way that has nothing to tell is told all the same, so that it is kept."""


@dataclass(frozen=True)
class Places:
    """The keys of shared runs, and the bounds of what is kept.

    Args:
        prefix: the beginning of all keys and channels.
        keep: seconds for which a run is kept after its end.
        most_bytes: bytes of frames that are kept of each.
        lease: seconds after which a process or a reader that was not heard of is gone.
        database: the number of the server's database. Keys are in it; channels are the whole server's, and name it.
    """

    prefix: str
    keep: float
    most_bytes: int
    lease: float
    database: int = 0

    def keep_ms(self, *, over: bool) -> int:
        """Return the milliseconds for which a run is kept that is told now; one under way is told again before."""
        return max(1, int((self.keep if over else self.keep + 2 * REFRESH) * 1000))

    def run(self, run_id: str) -> str:
        """Return the key of a run."""
        return f"{self.prefix}run:{run_id}"

    def name(self, key: str, name: str) -> str:
        """Return the key of a client's name for its run; nothing for no name."""
        return f"{self.prefix}name:{dumps([key, name]).decode()}" if name else ""

    def inbox(self, holder: str) -> str:
        """Return the channel of a process."""
        return f"{self.prefix}to:{holder}"

    @property
    def everybody(self) -> str:
        """The channel of all processes that share a database and a prefix."""
        return f"{self.prefix}all:{self.database}"
