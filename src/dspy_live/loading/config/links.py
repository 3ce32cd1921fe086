"""What one table of the file says of another: names that must be known, keys that exclude each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.config.fit import Found
from dspy_live.loading.config.mistakes import nearest
from dspy_live.loading.config.shape import (
    BudgetTable,
    Config,
    KeyTable,
    LayersTable,
    LMLayersTable,
    LMTable,
    StoreTable,
)
from dspy_live.sansio.quantities import bytes_of, seconds_of
from dspy_live.sansio.redis_address import checked_address
from dspy_live.server.keys.token import is_digest
from dspy_live.server.served import is_name

Path = tuple[str | int, ...]

_STORE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def broken_links(config: Config, environ: Mapping[str, str]) -> Iterator[Found]:
    """Yield what is wrong between the tables of a file whose values all fit, with the place."""
    yield from _lms(config, environ)
    yield from _programs(config)
    yield from _keys(config, environ)
    yield from _quantities(config)
    yield from _variable(config.ledger.place_env, config.ledger.place, ("ledger", "place"), environ)
    yield from _variable(config.sessions.place_env, config.sessions.place, ("sessions", "place"), environ)
    yield from _store(config.store, environ)


def broken_lm(config: Config, environ: Mapping[str, str]) -> Iterator[Found]:
    """Yield what is wrong with the table ``[lm]``."""
    if config.lm is not None:
        yield from _variable(config.lm.api_key_env, config.lm.api_key, ("lm", "api_key"), environ)


def _lms(config: Config, environ: Mapping[str, str]) -> Iterator[Found]:
    tables: list[tuple[Path, LMTable]] = [(("lms", name), table) for name, table in config.lms.items()]
    if config.lm is not None:
        tables.insert(0, (("lm",), config.lm))
    for path, table in tables:
        if table.model is None and path != ("lm",):
            yield path, "it must have 'model', such as model = \"openai/gpt-4o-mini\""
        yield from _variable(table.api_key_env, table.api_key, (*path, "api_key"), environ)
        for number, name in enumerate(table.fallback):
            if name not in config.lms:
                yield (*path, "fallback", number), f"there is no LM {name!r} in [lms]; {nearest(name, config.lms)}"
            elif path == ("lms", name):
                yield (*path, "fallback", number), "an LM can't be its own fallback"
        if table.layers.retry is not None and table.num_retries:
            yield (*path, "num_retries"), "give num_retries or layers.retry, not both: they would multiply"
        yield from _layers(table.layers, (*path, "layers"))


def _programs(config: Config) -> Iterator[Found]:
    for name, program in config.programs.items():
        path = ("programs", name)
        if not is_name(name):
            yield (
                path,
                "a program's name is made of letters, digits, '_', '.' and '-', and begins with none of the last two",
            )
        if program.lm is not None and program.lm not in config.lms:
            yield (*path, "lm"), f"there is no LM {program.lm!r} in [lms]; {nearest(program.lm, config.lms)}"
        yield from _layers(program.layers, (*path, "layers"))
        lm = config.lms.get(program.lm) if program.lm is not None else config.lm
        if program.layers.retry is not None and lm is not None and lm.layers.retry is not None:
            yield (*path, "layers", "retry"), "its LM is retried too: 3 tries inside of 3 tries are 9; keep one of them"


def _layers(layers: LMLayersTable, path: Path) -> Iterator[Found]:
    if layers.limit is not None and layers.adaptive:
        yield (*path, "adaptive"), "give limit or adaptive, not both"
    if layers.rate is not None and layers.rate.requests_per_minute is None and layers.rate.tokens_per_minute is None:
        yield (*path, "rate"), "it must have requests_per_minute, tokens_per_minute, or both"
    if layers.budget is not None and not _limits(layers.budget):
        yield (*path, "budget"), "it must have max_cost, max_tokens or max_calls"
    if isinstance(layers, LayersTable) and not isinstance(layers.cache, bool | None) and layers.cache.max_bytes:
        yield from _size(layers.cache.max_bytes, (*path, "cache", "max_bytes"))


def _limits(budget: BudgetTable) -> bool:
    return any(limit is not None for limit in (budget.max_cost, budget.max_tokens, budget.max_calls))


def _keys(config: Config, environ: Mapping[str, str]) -> Iterator[Found]:
    for name, key in config.keys.items():
        path = ("keys", name)
        if (key.hash is None) == (key.env is None):
            yield (
                path,
                "it must have one of hash (from `dspy-live keys hash`) and env (the variable that holds the key)",
            )
        if key.hash is not None and not is_digest(key.hash):
            yield (*path, "hash"), "must be 'sha256:' and 64 hexadecimal digits, as `dspy-live keys hash` prints it"
        if key.env is not None and not environ.get(key.env, "").strip():
            yield (*path, "env"), f"the variable {key.env} is not set, or is empty"
        yield from _key_limits(key, config, path)


def _key_limits(key: KeyTable, config: Config, path: Path) -> Iterator[Found]:
    for number, program in enumerate(key.programs or ()):
        if config.programs and program not in config.programs:
            yield (*path, "programs", number), f"there is no program {program!r}; {nearest(program, config.programs)}"
    for period in ("day", "month"):
        quota = getattr(key, period)
        if quota is not None and quota.max_cost is quota.max_tokens is quota.max_calls is None:
            yield (*path, period), "it must have max_cost, max_tokens or max_calls"


def _quantities(config: Config) -> Iterator[Found]:
    if config.server.max_body is not None:
        yield from _size(config.server.max_body, ("server", "max_body"))
    rotate = config.logging.rotate
    if rotate is not None and rotate not in ("daily", "hourly"):
        yield from _size(rotate, ("logging", "rotate"))
    for table, keep in (("ledger", config.ledger.keep), ("sessions", config.sessions.keep)):
        try:
            seconds_of(keep or "1d")
        except ConfigurationError as exc:
            yield (table, "keep"), exc.message


def _store(table: StoreTable, environ: Mapping[str, str]) -> Iterator[Found]:
    yield from _variable(table.url_env, table.url, ("store", "url"), environ)
    if table.url is table.url_env is None and table != StoreTable():
        yield ("store",), 'it must have url or url_env, such as url_env = "REDIS_URL": nothing is shared without'
    url = table.url if table.url_env is None else environ.get(table.url_env)
    if url:
        try:
            checked_address(url)
        except ConfigurationError as exc:
            yield ("store", "url" if table.url_env is None else "url_env"), exc.message
    if table.name and _STORE_NAME.fullmatch(table.name) is None:
        yield ("store", "name"), "must be 1 to 64 letters, digits and '_ . -'"
    if table.run_bytes is not None:
        yield from _size(table.run_bytes, ("store", "run_bytes"))


def _size(value: Any, path: Path) -> Iterator[Found]:
    try:
        if bytes_of(value) < 1:
            yield path, f"must be a byte at least; got {value!r}"
    except ConfigurationError as exc:
        yield path, exc.message


def _variable(name: str | None, given: str | None, path: Path, environ: Mapping[str, str]) -> Iterator[Found]:
    """Look at a secret that is given itself, or by the name of a variable."""
    if name is None:
        return
    variable = (*path[:-1], f"{path[-1]}_env")
    if given is not None:
        yield variable, f"give {path[-1]} or {path[-1]}_env, not both"
    elif not environ.get(name):
        yield variable, f"the variable {name} is not set, or is empty"
