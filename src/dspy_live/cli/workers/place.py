"""What a worker is told about its server, and the words of its supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STOP, AT_ONCE, RETIRE = b"stop\n", b"at once\n", b"retire\n"
"""What a supervisor says: end after the lame-duck time, end without it, leave the socket to a successor. Any word to a
worker that is ending already hurries it."""


@dataclass(frozen=True)
class Place:
    """A worker's place in its server.

    Args:
        number: no other worker of the server has had it.
        folder: where the workers of the server answer each other.
        began: when the server began, by ``time.monotonic()``.
    """

    number: int
    folder: Path
    began: float
