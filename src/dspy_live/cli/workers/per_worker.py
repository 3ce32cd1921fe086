"""What each worker of a server counts for itself, and what all share: told at the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspy_live.loading.config.read import ConfigFile
from dspy_live.loading.config.shape import LMLayersTable

KEPT_IN_STORE = frozenset({"budget", "cache", "limit", "rate", "single_flight"})
"""Layers whose state is in the server of ``[store]`` where one is configured; see ``loading/config/layers.py``."""


def told(size: int, file: ConfigFile, *, max_active: int | None, sessions: str | None, has_store: bool) -> str:
    """Return the lines of a starting server about its workers.

    Args:
        size: how many workers there are.
        file: the configuration.
        max_active: the most runs at once.
        sessions: the place of conversations that a flag names.
        has_store: whether a Redis or Valkey is configured.
    """
    lines = [f"  workers   {size}; SIGHUP replaces them one after the other"]
    alone = list(_alone(file, max_active, sessions, has_store))
    if alone:
        lines.append(f"  each worker has its own   {'; '.join(alone)}")
    shareable = sorted({kind for _, kind in _layers(file) if kind in KEPT_IN_STORE})
    if shareable and not has_store:
        lines.append(f"  a Redis or Valkey in [store] url= would share   {', '.join(shareable)}")
    elif shareable:
        lines.append(f"  shared through [store]   {', '.join(shareable)}")
    return "\n".join(lines)


def _alone(file: ConfigFile, max_active: int | None, sessions: str | None, has_store: bool) -> Iterator[str]:
    if max_active is not None:
        yield f"max_active ({max_active} runs in each)"
    for owner, kind in _layers(file):
        if not (has_store and kind in KEPT_IN_STORE):
            yield f"{kind} of {owner}"
    limits = ("requests_per_minute", "tokens_per_minute", "concurrency")
    names = [name for name, key in file.config.keys.items() if any(getattr(key, limit) is not None for limit in limits)]
    if names:
        yield f"limits per minute and at once of the keys {', '.join(names)}"
    table = file.config.sessions
    if (sessions or file.secret(table.place, table.place_env)) == "memory":
        yield "sessions (in its memory)"


def _layers(file: ConfigFile) -> Iterator[tuple[str, str]]:
    """Yield each layer that keeps a state which outlives a call: its owner and its name in the file."""
    owners: dict[str, LMLayersTable] = {}
    if file.config.lm is not None:
        owners["[lm]"] = file.config.lm.layers
    owners |= {f"the LM {name}": table.layers for name, table in file.config.lms.items()}
    owners |= {f"the program {name}": table.layers for name, table in file.config.programs.items()}
    for owner, table in owners.items():
        for kind in ("single_flight", "cache", "budget", "breaker", "rate", "limit", "adaptive"):
            value: Any = getattr(table, kind, None)
            if value and not (kind == "budget" and value.period != "ever"):
                yield owner, kind  # a day's or a month's budget is in the file of keys, which all workers write
