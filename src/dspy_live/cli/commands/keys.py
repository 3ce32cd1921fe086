"""``dspy-live keys``: make, list and revoke the API keys of a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dspy_live.core.errors import ConfigurationError, InputError
from dspy_live.loading.lm_settings import load_dotenv

if TYPE_CHECKING:
    from dspy_live.server.keys.key import Key, Quota
    from dspy_live.server.keys.store import KeyStore, StoredKey

_Several = Annotated[tuple[str, ...], Parameter(negative="", negative_iterable="")]
_HUP = "a server that runs learns of it by SIGHUP (kill -HUP PID)"


@Parameter(name="*", group="What a new key may do and use")
@dataclass(frozen=True)
class KeyFlags:
    """Limits of a new key; without any it may run every program as often as it likes."""

    program: _Several = ()
    "A program that it may run; may be given several times."

    scope: _Several = ()
    "What it may do: run (the default), metrics, usage; may be given several times."

    requests_per_minute: float | None = None
    "Runs in any 60 seconds."

    tokens_per_minute: float | None = None
    "Tokens in any 60 seconds."

    concurrency: int | None = None
    "Runs at once."

    cost_per_day: float | None = None
    "US dollars in a day (UTC)."

    tokens_per_day: int | None = None
    "Tokens in a day."

    calls_per_day: int | None = None
    "LM calls in a day."

    cost_per_month: float | None = None
    "US dollars in a month."

    tokens_per_month: int | None = None
    "Tokens in a month."

    calls_per_month: int | None = None
    "LM calls in a month."


def keys(
    action: Literal["create", "list", "revoke", "hash"],
    name: str | None = None,
    /,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    key_store: Path | None = None,
    config: Path | None = None,
    limits: KeyFlags | None = None,
) -> int:
    """Make, list and revoke the API keys of a server.

    A new key is printed once: only its hash is kept.

    Args:
        action: create a key; list all and what they have used; revoke one; hash prints the hash of a key from stdin
            that was made elsewhere, for the configuration file.
        name: what logs, ledger and metrics call the key.
        json: list the keys as a JSON array.
        key_store: the file of keys; by default the configuration's, else keys.db in ~/.dspy_live.
        config: the configuration file; dspy-live.toml of the working folder by default.
    """
    load_dotenv(Path(".env"), os.environ)
    if action in ("create", "revoke") and not name:
        raise InputError(f"keys {action} needs the key's name")
    if limits is not None and action != "create":
        raise InputError(f"keys {action} takes no limits; they belong to keys create")
    if action == "hash":
        return _hash()
    with closing(_open(key_store, config, make=action == "create")) as store:
        if action == "create":
            return _create(store, str(name), limits or KeyFlags())
        if action == "revoke":
            return _revoke(store, str(name))
        return _list(store, json)


def _create(store: KeyStore, name: str, limits: KeyFlags) -> int:
    from dspy_live.server.keys.token import make_key

    secret = make_key()
    store.add(_key(name, secret, limits))
    print(secret)
    print(f"dspy-live: the key is not shown again; its hash is in {store.path}; {_HUP}", file=sys.stderr)
    return 0


def _key(name: str, secret: str, limits: KeyFlags) -> Key:
    from dspy_live.server.keys.key import Key
    from dspy_live.server.keys.token import digest_of

    return Key(
        name=name,
        digest=digest_of(secret),
        programs=limits.program or None,
        scopes=limits.scope or ("run",),  # type: ignore[arg-type]  # Key looks at them
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrency=limits.concurrency,
        day=_quota(limits.cost_per_day, limits.tokens_per_day, limits.calls_per_day),
        month=_quota(limits.cost_per_month, limits.tokens_per_month, limits.calls_per_month),
    )


def _quota(cost: float | None, tokens: int | None, calls: int | None) -> Quota | None:
    from dspy_live.server.keys.key import Quota

    if cost is None and tokens is None and calls is None:
        return None
    return Quota(max_cost=cost, max_tokens=tokens, max_calls=calls)


def _revoke(store: KeyStore, name: str) -> int:
    if not store.revoke(name):
        from dspy_live.loading.config.mistakes import nearest

        names = [one.key.name for one in store.all() if one.revoked is None]
        raise InputError(f"no key {name!r} in {store.path}; {nearest(name, names)}")
    print(f"{name} is revoked; {_HUP}")
    return 0


def _list(store: KeyStore, as_json: bool) -> int:
    rows = [_row(store, one) for one in store.all()]
    if as_json:
        import orjson

        print(orjson.dumps(rows).decode())
        return 0
    for row in rows:
        state = f"revoked {row['revoked']}" if row["revoked"] else f"made {row['created']}"
        print(f"{row['name']}   {state}   {_limits(row['limits'])}")
        if not row["revoked"]:
            print(f"    today {_spent(row['today'])}; this month {_spent(row['this_month'])}")
    if not rows:
        print("no keys; make one with: dspy-live keys create NAME")
    return 0


def _row(store: KeyStore, one: StoredKey) -> dict[str, Any]:
    import time

    import msgspec

    from dspy_live.server.keys.periods import stamp

    now = time.time()
    limits = msgspec.to_builtins(one.key)
    row: dict[str, Any] = {"name": limits.pop("name"), "created": _when(one.created), "revoked": _when(one.revoked)}
    limits.pop("digest")
    return row | {
        "limits": limits,
        "today": store.spent(one.key.name, stamp("day", now)),
        "this_month": store.spent(one.key.name, stamp("month", now)),
    }


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _limits(limits: dict[str, Any]) -> str:
    words = []
    for name, value in limits.items():
        if isinstance(value, dict):
            words += [f"{each.removeprefix('max_')} {amount:g} a {name}" for each, amount in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            words.append(f"{name} {', '.join(map(str, value))}")
        else:
            words.append(f"{name.replace('_', ' ')} {value:g}")
    return "; ".join(words) or "no limits"


def _spent(spent: dict[str, float]) -> str:
    return f"${spent['cost']:,.4f}, {spent['tokens']:,.0f} tokens, {spent['calls']:,.0f} LM calls"


def _hash() -> int:
    from dspy_live.server.keys.token import LEAST, digest_of

    if sys.stdin.isatty():
        import getpass

        secret = getpass.getpass("key: ").strip()
    else:
        secret = sys.stdin.readline().strip()
    if len(secret) < LEAST:
        raise InputError(
            f"a key must have {LEAST} characters or more, and be random, for its hash is a quick one; "
            "dspy-live keys create makes one"
        )
    print(digest_of(secret))
    return 0


def _open(given: Path | None, config: Path | None, *, make: bool) -> KeyStore:
    from dspy_live.loading.config.keys import key_store_path
    from dspy_live.loading.config.read import ConfigFile, find_config, read_config
    from dspy_live.server.keys.store import KeyStore

    found = find_config(config) if given is None else None
    file = ConfigFile() if found is None else read_config(found, for_server=False)
    path = key_store_path(file, given)
    if not make and not path.is_file():
        raise ConfigurationError(f"there is no file of keys at {path}; dspy-live keys create NAME makes one")
    return KeyStore(path)
