"""Prices from the table that DSPy ships. Read from the installed package; nothing is fetched.

DSPy's own loader asks a remote address first, so its table is read here past that loader.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import orjson

from dspy_live.programs.internals import _provider_names, rate
from dspy_live.runtime.books.prices import Price
from dspy_live.runtime.forks import process_lock

_lock = process_lock()
_table: dict[str, Any] | None = None
_ABOVE = re.compile(r"_above_(\d+)k_tokens$")


def price_of(model: str) -> Price | None:
    """Return the price of ``"provider/model"`` (or of a bare model name) from DSPy's table, else ``None``.

    The first call reads the table (30 ms, a few megabytes); :func:`load` does it ahead.
    """
    entry = _entry(load(), model)
    if not entry:
        return None
    whole = _price(entry, "")
    if whole is None:
        return None
    steps = sorted({int(m[1]) for key in entry if (m := _ABOVE.search(key))})
    above: list[tuple[int, Price]] = []
    for thousands in steps:
        higher = _price(entry, f"_above_{thousands}k_tokens")
        if higher is None:  # half a tariff: rather no price than one that is too low
            return None
        above.append((thousands * 1000, higher))
    return Price(whole.input, whole.output, whole.cached_input, whole.cache_write, whole.reasoning, tuple(above))


def load() -> dict[str, Any]:
    """Read DSPy's table once per process and return it."""
    global _table
    if _table is None:
        with _lock:
            if _table is None:
                packed = files("dspy.clients.model_metadata").joinpath("snapshot.json.gz").read_bytes()
                _table = {k: v for k, v in orjson.loads(gzip.decompress(packed)).items() if isinstance(v, dict)}
    return _table


def _entry(table: Mapping[str, Any], model: str) -> Mapping[str, Any] | None:
    provider, _, name = model.partition("/")
    if not name:
        return table.get(model)
    names = _provider_names(provider)
    for prefix in names:
        if f"{prefix}/{name}" in table:
            return table[f"{prefix}/{name}"]  # type: ignore[no-any-return]
    bare = table.get(name)
    return bare if bare is not None and bare.get("litellm_provider") in names else None


def _price(entry: Mapping[str, Any], suffix: str) -> Price | None:
    def per_million(key: str) -> float | None:
        found = rate(entry, key + suffix)
        return None if found is None else round(found * 1_000_000, 9)

    given, made = per_million("input_cost_per_token"), per_million("output_cost_per_token")
    if given is None or made is None:
        return None
    return Price(
        given,
        made,
        per_million("cache_read_input_token_cost"),
        per_million("cache_creation_input_token_cost"),
        per_million("output_cost_per_reasoning_token"),
    )
