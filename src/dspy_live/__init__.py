"""dspy-live takes a DSPy program to production: asynchronous, streamed by field, cancelled for real, served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_live.core.call import Buffer
    from dspy_live.core.events import Restart
    from dspy_live.layers.budget import Budget, BudgetAlert
    from dspy_live.loading.app import create_app
    from dspy_live.loading.simulated_lm import sim_lm
    from dspy_live.observe.logs import log_structured, setup_logging
    from dspy_live.observe.tracker import UsageTracker
    from dspy_live.programs.api.asyncify import asyncify
    from dspy_live.programs.api.batch import BatchError, BatchItem, abatch, batch, stream_batch
    from dspy_live.programs.api.items import PartialValue, StreamItem, StreamToken
    from dspy_live.programs.api.listeners import StreamListener
    from dspy_live.programs.api.parallel import Parallel
    from dspy_live.programs.api.streamify import streamify
    from dspy_live.programs.api.streaming_response import streaming_response
    from dspy_live.programs.api.syncify import syncify
    from dspy_live.programs.api.tool import Tool
    from dspy_live.programs.api.track_usage import track_usage
    from dspy_live.programs.cache.store import cache
    from dspy_live.programs.lm.lm import LM
    from dspy_live.programs.run.run import emit
    from dspy_live.programs.run.status import StatusMessageProvider
    from dspy_live.runtime.books.account import set_prices
    from dspy_live.runtime.runtime import Runtime, default_runtime, set_default_runtime

__version__ = "0.1.0"

# Imported when they are first asked for: `import dspy` takes a second, and a command that only
# prints its help has no use for it.
_HOMES = {
    "UsageTracker": "observe.tracker",
    "Budget": "layers.budget",
    "BudgetAlert": "layers.budget",
    "cache": "programs.cache.store",
    "set_prices": "runtime.books.account",
    "setup_logging": "observe.logs",
    "log_structured": "observe.logs",
    "track_usage": "programs.api.track_usage",
    "syncify": "programs.api.syncify",
    "streaming_response": "programs.api.streaming_response",
    "Tool": "programs.api.tool",
    "Parallel": "programs.api.parallel",
    "BatchError": "programs.api.batch",
    "BatchItem": "programs.api.batch",
    "stream_batch": "programs.api.batch",
    "abatch": "programs.api.batch",
    "batch": "programs.api.batch",
    "LM": "programs.lm.lm",
    "Buffer": "core.call",
    "PartialValue": "programs.api.items",
    "Restart": "core.events",
    "Runtime": "runtime.runtime",
    "StatusMessageProvider": "programs.run.status",
    "StreamItem": "programs.api.items",
    "StreamListener": "programs.api.listeners",
    "StreamToken": "programs.api.items",
    "asyncify": "programs.api.asyncify",
    "create_app": "loading.app",
    "default_runtime": "runtime.runtime",
    "emit": "programs.run.run",
    "set_default_runtime": "runtime.runtime",
    "sim_lm": "loading.simulated_lm",
    "streamify": "programs.api.streamify",
}

__all__ = [
    "LM",
    "BatchError",
    "BatchItem",
    "Budget",
    "BudgetAlert",
    "Buffer",
    "Parallel",
    "PartialValue",
    "Restart",
    "Runtime",
    "StatusMessageProvider",
    "StreamItem",
    "StreamListener",
    "StreamToken",
    "Tool",
    "UsageTracker",
    "abatch",
    "asyncify",
    "batch",
    "cache",
    "create_app",
    "default_runtime",
    "emit",
    "log_structured",
    "set_default_runtime",
    "set_prices",
    "setup_logging",
    "sim_lm",
    "stream_batch",
    "streamify",
    "streaming_response",
    "syncify",
    "track_usage",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dspy_live' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"dspy_live.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
