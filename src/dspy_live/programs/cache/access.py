"""The response cache as the engine uses it: one key for sync and async calls, records of DSPy's own form."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from dspy_live.programs.cache.store import cache
from dspy_live.programs.internals import CACHE_FORMAT, CallResult

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM
    from dspy_live.programs.lm.seam.lm_call import LMCall


async def lookup(lm: LM, call: LMCall) -> CallResult | None:
    """Return the cached result of this call, or ``None``; a damaged or foreign entry is a miss."""
    return await cache.get(call.key(lm), lambda record: _load(lm, call, record))


def turn(lm: LM, call: LMCall) -> AbstractAsyncContextManager[None]:
    """Return a context for one call from look-up to store; identical ones wait for the first."""
    return cache.turn(call.key(lm))


async def store(lm: LM, call: LMCall, result: CallResult) -> None:
    """Keep a result, as plain data."""
    await cache.put(call.key(lm), result.dump())


def _load(lm: LM, call: LMCall, record: Any) -> CallResult:
    if isinstance(record, dict) and record.get("_dspy_format") == CACHE_FORMAT:
        return CallResult.load(record)
    result = CallResult.legacy(lm, record, kwargs=call.inputs)
    result.cache_hit = True
    result.usage = {}
    return result
