"""``dspy-live cache``: look at the response cache, and make it smaller."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from dspy_live.loading.lm_settings import load_dotenv

Action = Literal["stats", "clear", "prune"]


def cache(
    action: Action,
    /,
    *,
    max_bytes: str | None = None,
    older_than: str | None = None,
    redis: str | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Look at the cache of LM replies, empty it, or make it smaller.

    It is DSPy's own: the folder that DSPY_CACHEDIR names, else ~/.dspy_cache; or a shared one, with --redis.

    Args:
        action: stats shows it, clear removes everything, prune removes the oldest.
        max_bytes: for prune: how much may stay, such as 500MB.
        older_than: for prune: the age at which entries go, such as 30d.
        redis: a shared cache in Redis or Valkey, such as redis://127.0.0.1:6379; DSPY_LIVE_CACHE otherwise.
        yes: clear without asking.
        json: print JSON.
    """
    from dspy_live.core.errors import ConfigurationError

    if action != "prune" and (max_bytes or older_than):
        raise ConfigurationError(f"--max-bytes and --older-than are for prune, not for {action}")
    responses = open_cache(redis)
    if action == "stats":
        found = responses.stats()
        # Hits and misses are counted by the process that asks LMs, and this one does not.
        _print({name: found[name] for name in ("store", "entries", "bytes")}, as_json=json)
        return 0
    if action == "clear":
        found = responses.stats()
        if not yes and not _agreed(f"remove all {found['entries']:,} replies in {found['store']}?"):
            print("nothing was removed", file=sys.stderr)
            return 1
        _print({"removed": responses.clear()}, as_json=json)
        return 0
    from dspy_live.sansio.quantities import bytes_of, seconds_of

    removed = responses.prune(
        max_bytes=bytes_of(max_bytes) if max_bytes else None, older_than=seconds_of(older_than) if older_than else None
    )
    _print({"removed": removed, "left": responses.stats()["entries"]}, as_json=json)
    return 0


def open_cache(redis: str | None = None) -> Any:
    """Return the process's cache, put on the shared store that is named here; ``DSPY_LIVE_CACHE`` holds otherwise."""
    load_dotenv(Path(".env"), os.environ)
    from dspy_live.programs.cache.store import cache as responses  # DSPy reads DSPY_CACHEDIR when it is imported

    if redis:
        from dspy_live.runtime.stores.redis import RedisStore

        responses.use(RedisStore(redis))
    return responses


def _print(values: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        import orjson

        print(orjson.dumps(values).decode())
        return
    for name, value in values.items():
        print(f"{name:<8} {value:,}" if isinstance(value, int) else f"{name:<8} {value}")


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        from dspy_live.core.errors import ConfigurationError

        raise ConfigurationError("clear asks before it removes anything; give --yes where nobody can answer")
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
