"""dspy-live takes a DSPy program to production: asynchronous, streamed by field, cancelled for real, served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_live.app import create_app
    from dspy_live.core.call import Buffer
    from dspy_live.core.events import Restart
    from dspy_live.programs.asyncify import asyncify
    from dspy_live.programs.batch import BatchError, BatchItem, abatch, batch, stream_batch
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
    from dspy_live.runtime.runtime import Runtime, default_runtime, set_default_runtime

__version__ = "0.1.0"

# Imported when they are first asked for: `import dspy` takes a second, and a command that only
# prints its help has no use for it.
_HOMES = {
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
    "Buffer",
    "Parallel",
    "PartialValue",
    "Restart",
    "Runtime",
    "StatusMessageProvider",
    "StreamListener",
    "StreamToken",
    "Tool",
    "abatch",
    "asyncify",
    "batch",
    "create_app",
    "default_runtime",
    "emit",
    "set_default_runtime",
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
