"""A process that may open few files keeps them for its clients and its LM."""

from __future__ import annotations

import logging

import dspy

logger = logging.getLogger("dspy_live.server")

ENOUGH = 256
"""File descriptors with which a server has some for DSPy's cache on disk, which takes 52 with its first entry, and 48
more for each thread that reads it."""


def spare_descriptors(limit: int) -> bool:
    """Keep DSPy's cache in memory only where the process may open fewer than :data:`ENOUGH` files.

    A cache that the user's program has configured stays as it is. Returns whether the cache is in memory only now.
    """
    if limit >= ENOUGH or "cache" in vars(dspy):
        return False
    dspy.configure_cache(enable_disk_cache=False)
    logger.warning(
        "this process may open %d files only: DSPy's cache is kept in memory, and not on disk; raise it with "
        "'ulimit -n %d', or LimitNOFILE of a systemd unit",
        limit,
        ENOUGH,
    )
    return True
