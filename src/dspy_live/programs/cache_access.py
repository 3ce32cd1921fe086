"""The response cache as the engine uses it: DSPy's own store, one key for sync and async calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import dspy

from dspy_live.programs.internals import CACHE_FORMAT, IGNORED_CACHE_KEYS, CallResult, PreparedCall

if TYPE_CHECKING:
    from dspy_live.programs.lm import LM


async def lookup(lm: LM, call: PreparedCall) -> CallResult | None:
    """Return the cached result of this call, or ``None``. Memory is looked at here, the disk in a thread."""
    key = call.key(lm, False)
    store = dspy.cache
    if getattr(store, "enable_disk_cache", True):
        record = await asyncio.to_thread(store.get, key, IGNORED_CACHE_KEYS)
    else:
        record = store.get(key, IGNORED_CACHE_KEYS)
    if record is None:
        return None
    return _load(lm, call, record)


def _load(lm: LM, call: PreparedCall, record: Any) -> CallResult:
    if isinstance(record, dict) and record.get("_dspy_format") == CACHE_FORMAT:
        return CallResult.load(record)
    result = CallResult.legacy(lm, record, kwargs=call.legacy)
    result.cache_hit = True
    result.usage = {}
    return result


async def store(lm: LM, call: PreparedCall, result: CallResult) -> None:
    """Keep a result, as plain data."""
    key = call.key(lm, False)
    keeper = dspy.cache
    if getattr(keeper, "enable_disk_cache", True):
        await asyncio.to_thread(keeper.put, key, result.dump(), IGNORED_CACHE_KEYS)
    else:
        keeper.put(key, result.dump(), IGNORED_CACHE_KEYS)
