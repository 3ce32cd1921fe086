"""The keys of a server: of the command line, of the file, of the file of keys; and how they are read again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.layers import SharedBudget
from dspy_live.layers.budget import Budget
from dspy_live.loading.config.read import ConfigFile, read_config
from dspy_live.loading.config.shape import Config, KeyTable, QuotaTable
from dspy_live.loading.config.store import SharedStore
from dspy_live.runtime.home import home_file, home_is_given
from dspy_live.server.keys.bookkeeper import Bookkeeper
from dspy_live.server.keys.key import PLAIN, Key, Period, Quota
from dspy_live.server.keys.quota import PeriodBudget
from dspy_live.server.keys.shared_limits import SharedKeyLimits, SharedPlace
from dspy_live.server.keys.store import KeyStore
from dspy_live.server.keys.token import digest_of
from dspy_live.server.transport.auth import Keys

log = logging.getLogger("dspy_live.keys")

STORE_NAME = "keys.db"


def key_store_path(file: ConfigFile, given: Path | None = None) -> Path:
    """Return the file of keys: the given one, else the configuration's, else ``keys.db``.

    That is in ``DSPY_LIVE_HOME`` where this is set, else beside the configuration, else in ``~/.dspy_live``.
    """
    if given is not None:
        return given
    if file.config.key_store.file is not None:
        return file.near(file.config.key_store.file)
    if file.path is None or home_is_given(file.environ):
        return home_file(STORE_NAME)
    return file.near(STORE_NAME)


def file_keys(file: ConfigFile) -> list[Key]:
    """Return the keys of the tables ``[keys.NAME]``. Raises :class:`ConfigurationError` for a name that can't be."""
    return [_key(name, table, file) for name, table in file.config.keys.items()]


class ServerKeys:
    """The keys of a running server.

    Args:
        file: the configuration.
        plain: keys by name that the command line gives; they have no limits.
        store: the file of keys, which need not be there: see :func:`key_store_path`.
        shared: a Redis or Valkey where limits and quotas are kept for several servers, or ``None``.

    ``keys`` is handed to ``create_app``.
    """

    def __init__(
        self, file: ConfigFile, plain: Mapping[str, str], store: Path, shared: SharedStore | None = None
    ) -> None:
        self._file = file
        self._plain = [Key(name=name, digest=digest_of(key), scopes=PLAIN) for name, key in plain.items()]
        self._path = store
        self._shared_store = shared
        self._shared: list[SharedBudget] = []
        self._store: KeyStore | None = None
        self._bookkeeper: Bookkeeper | None = None
        found = self._found(file)
        try:
            self.keys = Keys(
                found,
                bookkeeper=self._bookkeeper,
                required=self._has_stored(),
                budget=self._shared_budget if shared is not None else None,
                shared=partial(SharedKeyLimits, _place(shared)) if shared is not None else None,
            )
        except BaseException:
            self.close()
            raise

    def keep(self, budget: Budget) -> None:
        """Remember the spending of a budget that is no key's, too; close one that several servers share at the end."""
        if isinstance(budget, SharedBudget):
            self._shared.append(budget)
        if not isinstance(budget, PeriodBudget):
            return
        self._open(make=True)
        assert self._bookkeeper is not None
        self._bookkeeper.keep_budget(budget)

    def told(self) -> str:
        """Return how many keys there are, for people; ``none asked for`` where everybody may ask."""
        if not self.keys:
            return "none asked for"
        return f"{len(self.keys)}" + (f" ({self._path} among them)" if self._store is not None else "")

    def reload(self) -> None:
        """Read the configuration and the file of keys again; with a mistake in them the keys stay as they are.

        The log says which. Never raises.
        """
        try:
            file = self._file if self._file.path is None else read_config(self._file.path, self._file.environ)
            self.keys.replace(self._found(file), bookkeeper=self._bookkeeper)
        except ConfigurationError as exc:
            log.error("SIGHUP: the keys stay as they were; %s", exc.message)
            return
        log.warning("SIGHUP: %d keys are in force", len(self.keys))
        if _without_keys(file.config) != _without_keys(self._file.config):
            log.warning("SIGHUP: %s has changed beside its keys; that takes a new start", file.path)

    def close(self) -> None:
        """Write down what keys have used, and close the file."""
        for budget in self._shared:
            budget.close()
        bookkeeper: Bookkeeper | None = self._bookkeeper
        if bookkeeper is not None:
            bookkeeper.close()
        if self._store is not None:
            self._store.close()

    def _found(self, file: ConfigFile) -> list[Key]:
        self._open(make=False)
        stored = [] if self._store is None else [one.key for one in self._store.all() if one.revoked is None]
        found = [*self._plain, *file_keys(file), *stored]
        if any(key.limited for key in found):
            self._open(make=True)
        return found

    def _has_stored(self) -> bool:
        """True where the file of keys has any, though all be revoked: a server without keys is open to everybody."""
        return self._store is not None and bool(self._store.all())

    def _open(self, *, make: bool) -> None:
        if self._store is None and self._file.config.key_store.enabled and (make or self._path.is_file()):
            self._store = KeyStore(self._path)
            self._bookkeeper = Bookkeeper(self._store)

    def _shared_budget(self, key: str, period: Period, quota: Quota) -> Budget:
        store = self._shared_store
        assert store is not None
        name = store.named(f"key:{key}:{period}")
        budget = SharedBudget(store.url, name, period=period, **store.options(), **quota.limits())
        self._shared.append(budget)
        return budget


def _place(store: SharedStore) -> SharedPlace:
    return SharedPlace(store.url, store.named("key"), store.on_outage, store.timeout)


def _key(name: str, table: KeyTable, file: ConfigFile) -> Key:
    secret = (file.secret(None, table.env) or "").strip()
    try:
        return Key(
            name=name,
            digest=table.hash if table.hash is not None else digest_of(secret),
            programs=None if table.programs is None else tuple(table.programs),
            scopes=("run",) if table.scopes is None else tuple(table.scopes),
            requests_per_minute=table.requests_per_minute,
            tokens_per_minute=table.tokens_per_minute,
            concurrency=table.concurrency,
            day=_quota(table.day),
            month=_quota(table.month),
        )
    except ConfigurationError as exc:
        raise ConfigurationError(f"{file.path}: {exc.message}") from None


def _quota(table: QuotaTable | None) -> Quota | None:
    return None if table is None else Quota(**msgspec.structs.asdict(table))


def _without_keys(config: Config) -> Config:
    return msgspec.structs.replace(config, keys={})
