"""The response cache as the engine uses it: one key for sync and async calls, records of DSPy's own form."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from dspy_live.programs.cache.store import cache
from dspy_live.programs.internals import CACHE_FORMAT, CallResult, PreparedCall

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM


async def lookup(lm: LM, call: PreparedCall) -> CallResult | None:
    """Return the cached result of this call, or ``None``; a damaged or foreign entry is a miss."""
    return await cache.get(call.key(lm, False), lambda record: _load(lm, call, record))


def turn(lm: LM, call: PreparedCall) -> AbstractAsyncContextManager[None]:
    """Return a context for one call from look-up to store; identical ones wait for the first."""
    return cache.turn(call.key(lm, False))


async def store(lm: LM, call: PreparedCall, result: CallResult) -> None:
    """Keep a result, as plain data."""
    await cache.put(call.key(lm, False), result.dump())


def _load(lm: LM, call: PreparedCall, record: Any) -> CallResult:
    if isinstance(record, dict) and record.get("_dspy_format") == CACHE_FORMAT:
        return CallResult.load(record)
    result = CallResult.legacy(lm, record, kwargs=call.legacy)
    result.cache_hit = True
    result.usage = {}
    return result
