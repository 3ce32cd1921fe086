"""What several servers, or workers, of one file share through its ``[store]``, and what each has for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from dspy_live.loading.config.keys import file_keys, key_store_path
from dspy_live.loading.config.read import ConfigFile
from dspy_live.loading.config.sessions import VARIABLE
from dspy_live.loading.config.shape import LMLayersTable
from dspy_live.loading.config.store import SharedStore
from dspy_live.server.keys.shared_limits import SharedKeyLimits
from dspy_live.server.keys.store import KeyStore

KEPT_IN_STORE = frozenset({"budget", "cache", "limit", "rate", "single_flight"})
"""Layers whose state is in the server of ``[store]`` where one is configured; see ``loading/config/layers.py``."""

RUNS = "runs of POST /runs"


def shared_through(store: SharedStore, file: ConfigFile, sessions: str | None = None) -> list[str]:
    """Return what goes through the store.

    Args:
        store: the store.
        file: the configuration.
        sessions: the place of conversations that a flag names.
    """
    found = [RUNS] if store.runs else []
    if sessions is None and _place(file) is None:
        found.append("conversations")
    layers = {kind for _, kind in layers_with_state(file) if kind in KEPT_IN_STORE}
    periods = any(table.budget is not None and table.budget.period != "run" for table in _tables(file).values())
    return [*found, *sorted(layers | ({"budget"} if periods else set())), "limits and quotas of keys"]


def shareable(file: ConfigFile, key_store: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield what each process counts for itself without a store: what it is, and whose."""
    for owner, kind in layers_with_state(file):
        if kind in KEPT_IN_STORE:
            yield kind, owner
    keys = limited_keys(file, key_store)
    if keys:
        yield "limits per minute and at once", f"the keys {', '.join(keys)}"


def never_shared(file: ConfigFile, max_active: int | None, sessions: str | None, *, store: bool) -> Iterator[str]:
    """Yield what each process has for itself, whatever store there is."""
    if max_active is not None:
        yield f"max_active ({max_active} runs in each)"
    for owner, kind in layers_with_state(file):
        if kind not in KEPT_IN_STORE:
            yield f"{kind} of {owner}"
    if (sessions or _place(file) or (None if store else file.environ.get(VARIABLE))) == "memory":
        yield "sessions (in its memory)"


def limited_keys(file: ConfigFile, key_store: Path | None = None) -> list[str]:
    """Return the names of the keys that have limits per minute or at once: those of the file and those made since."""
    keys = file_keys(file)
    path = key_store_path(file, key_store)
    if file.config.key_store.enabled and path.is_file():
        with closing(KeyStore(path)) as kept:
            keys += [one.key for one in kept.all() if one.revoked is None]
    return [key.name for key in keys if SharedKeyLimits.wanted(key)]


def layers_with_state(file: ConfigFile) -> Iterator[tuple[str, str]]:
    """Yield each layer that keeps a state which outlives a call: its owner and its name in the file."""
    for owner, table in _tables(file).items():
        for kind in ("single_flight", "cache", "budget", "breaker", "rate", "limit", "adaptive"):
            value: Any = getattr(table, kind, None)
            if value and not (kind == "budget" and value.period != "ever"):
                yield owner, kind  # a day's or a month's budget is in the file of keys, which all workers write


def _tables(file: ConfigFile) -> dict[str, LMLayersTable]:
    owners: dict[str, LMLayersTable] = {}
    if file.config.lm is not None:
        owners["[lm]"] = file.config.lm.layers
    owners |= {f"the LM {name}": table.layers for name, table in file.config.lms.items()}
    return owners | {f"the program {name}": table.layers for name, table in file.config.programs.items()}


def _place(file: ConfigFile) -> str | None:
    table = file.config.sessions
    return file.secret(table.place, table.place_env)
