"""dspy-live takes a DSPy program to production: asynchronous, streamed by field, cancelled for real, served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_live.app import create_app
    from dspy_live.core.call import Buffer
    from dspy_live.core.events import Restart
    from dspy_live.layers.budget import Budget, BudgetAlert
    from dspy_live.observe.logs import log_structured, setup_logging
    from dspy_live.observe.tracker import UsageTracker
    from dspy_live.programs.asyncify import asyncify
    from dspy_live.programs.batch import BatchError, BatchItem, abatch, batch, stream_batch
    from dspy_live.programs.cache_store import cache
    from dspy_live.programs.items import PartialValue, StreamToken
    from dspy_live.programs.listeners import StreamListener
    from dspy_live.programs.lm import LM
    from dspy_live.programs.parallel import Parallel
    from dspy_live.programs.run import emit
    from dspy_live.programs.status import StatusMessageProvider
    from dspy_live.programs.streamify import streamify
    from dspy_live.programs.streaming_response import streaming_response
    from dspy_live.programs.syncify import syncify
    from dspy_live.programs.tool import Tool
    from dspy_live.programs.track_usage import track_usage
    from dspy_live.runtime.account import set_prices
    from dspy_live.runtime.runtime import Runtime, default_runtime, set_default_runtime

__version__ = "0.1.0"

# Imported when they are first asked for: `import dspy` takes a second, and a command that only
# prints its help has no use for it.
_HOMES = {
    "UsageTracker": "observe.tracker",
    "Budget": "layers.budget",
    "BudgetAlert": "layers.budget",
    "cache": "programs.cache_store",
    "set_prices": "runtime.account",
    "setup_logging": "observe.logs",
    "log_structured": "observe.logs",
    "track_usage": "programs.track_usage",
    "syncify": "programs.syncify",
    "streaming_response": "programs.streaming_response",
    "Tool": "programs.tool",
    "Parallel": "programs.parallel",
    "BatchError": "programs.batch",
    "BatchItem": "programs.batch",
    "stream_batch": "programs.batch",
    "abatch": "programs.batch",
    "batch": "programs.batch",
    "LM": "programs.lm",
    "Buffer": "core.call",
    "PartialValue": "programs.items",
    "Restart": "core.events",
    "Runtime": "runtime.runtime",
    "StatusMessageProvider": "programs.status",
    "StreamListener": "programs.listeners",
    "StreamToken": "programs.items",
    "asyncify": "programs.asyncify",
    "create_app": "app",
    "default_runtime": "runtime.runtime",
    "emit": "programs.run",
    "set_default_runtime": "runtime.runtime",
    "streamify": "programs.streamify",
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
