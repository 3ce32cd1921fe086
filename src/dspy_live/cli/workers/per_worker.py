"""What each worker of a server counts for itself, and what all share: told at the start."""

from __future__ import annotations

from pathlib import Path

from dspy_live.loading.config.read import ConfigFile
from dspy_live.loading.config.sharing import RUNS, never_shared, shareable, shared_through
from dspy_live.loading.config.store import SharedStore


def told(
    size: int,
    file: ConfigFile,
    *,
    max_active: int | None,
    sessions: str | None,
    store: SharedStore | None,
    key_store: Path | None = None,
) -> str:
    """Return the lines of a starting server about its workers.

    Args:
        size: how many workers there are.
        file: the configuration.
        max_active: the most runs at once.
        sessions: the place of conversations that a flag names.
        store: the Redis or Valkey that is configured.
        key_store: the file of keys that a flag names.
    """
    lines = [f"  workers   {size}; SIGHUP replaces them one after the other"]
    alone = list(never_shared(file, max_active, sessions, store=store is not None))
    counted = [] if store is not None else list(shareable(file, key_store))
    alone += [f"{what} of {whose}" for what, whose in counted]
    if store is None or not store.runs:
        alone.append(f"{RUNS}, which end with it")
    if alone:
        lines.append(f"  each worker has its own   {'; '.join(alone)}")
    if store is None:
        would = ", ".join([RUNS, *sorted({what for what, _ in counted})])
        lines.append(f"  a Redis or Valkey in [store] url= would share   {would}")
    else:
        lines.append(f"  shared through [store]   {', '.join(shared_through(store, file, sessions))}")
    return "\n".join(lines)
