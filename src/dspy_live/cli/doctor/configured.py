"""The configuration file, and the places that it names: ledger, keys, shared store."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dspy_live.cli.doctor.finding import Finding
from dspy_live.cli.doctor.machine import database
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.config.read import ConfigFile, find_config, read_config

_SECONDS = 3.0
_PORTS = {"redis": 6379, "rediss": 6379, "postgresql": 5432, "postgres": 5432}


def configuration(given: Path | None) -> tuple[ConfigFile, Finding]:
    """Read the configuration, and say what is wrong with it. One with mistakes counts as none."""
    path = find_config(given)
    if path is None:
        return ConfigFile(), Finding(
            "note", "config", "no dspy-live.toml here: flags and defaults count", "dspy-live init"
        )
    try:
        file = read_config(path)
    except ConfigurationError as exc:
        count = exc.message.count("\n") + 1
        first = exc.message.split("\n")[0]
        more = f" (and {count - 1} more)" if count > 1 else ""
        return ConfigFile(), Finding("bad", "config", f"{first}{more}", f"dspy-live check {path} tells all")
    return file, Finding("ok", "config", f"{path}: no mistake")


def needed_extras(file: ConfigFile) -> set[str]:
    """Return the extras that the configuration can't do without."""
    needed = set()
    if file.config.store.url is not None or file.config.store.url_env is not None:
        needed.add("redis")
    if _ledger_place(file).startswith(("postgresql://", "postgres://")):
        needed.add("postgres")
    if file.config.tracing.endpoint is not None:
        needed.add("otel")
    return needed


def places(file: ConfigFile, network: bool) -> Iterator[Finding]:
    """Look at the ledger, the file of keys and, with ``network``, at servers that keep them."""
    from dspy_live.loading.config.keys import key_store_path
    from dspy_live.loading.config.sharing import shared_through
    from dspy_live.loading.config.store import store_of

    place = _ledger_place(file)
    if file.config.ledger.enabled is False:
        yield Finding("ok", "ledger", "switched off by the configuration")
    elif "://" not in place:
        do = "name another place: DSPY_LIVE_LEDGER, [ledger] place, or --no-ledger for none"
        yield database("ledger", Path(place).expanduser(), do)
    elif network:
        yield _reached("ledger", place, "is the database running? The ledger's address is DSPY_LIVE_LEDGER or [ledger]")
    keys = key_store_path(file)
    if keys.is_file():
        yield database("keys", keys, "name another file: [key_store] file, or --key-store")
    store = store_of(file)
    if store is not None:
        yield Finding("ok", "shared", f"through [store]: {', '.join(shared_through(store, file))}")
    if store is not None and network:
        yield _reached("store", store.url, "is it running? Its address is url in [store]")


def _ledger_place(file: ConfigFile) -> str:
    from dspy_live.observe.ledger.ledger import default_place

    place = file.secret(file.config.ledger.place, file.config.ledger.place_env)
    if place is None:
        return default_place()
    return place if "://" in place else str(file.near(place))


def _reached(name: str, url: str, do: str) -> Finding:
    parts = urlsplit(url)
    try:
        where = (parts.hostname or "localhost", parts.port or _PORTS.get(parts.scheme, 0))
        with socket.create_connection(where, timeout=_SECONDS):
            return Finding("ok", name, f"{parts.scheme}://{where[0]}:{where[1]} answers")
    except (OSError, ValueError) as exc:
        host = f"{parts.scheme}://{parts.hostname or ''}"
        return Finding("bad", name, f"{host} does not answer: {getattr(exc, 'strerror', None) or exc}", do)
