"""How large an adaptive buffer should be: arithmetic on how long a full one stayed full."""

from __future__ import annotations

QUICK = 0.010
"""Seconds. A reader that makes room so soon was only interrupted: a larger buffer saves it a stop."""

SLOW = 0.250
"""Seconds. A reader that takes so long gains nothing from what waits, which only grows stale."""


def next_bound(bound: int, low: int, high: int, full_for: float) -> int:
    """Return the bound after the buffer was full for ``full_for`` seconds and then had room.

    It doubles, up to ``high``, when the reader was quick, and halves, down to ``low``, when it was slow.
    """
    if full_for <= QUICK:
        return min(bound * 2, high)
    if full_for >= SLOW:
        return max(bound // 2, low)
    return bound
