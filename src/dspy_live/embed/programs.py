"""Open the program that the host names, with the host's LM settings and its number of threads."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from dspy_live.embed.wire import Settings
from dspy_live.loading import open_program as loading
from dspy_live.loading.lm_settings import LMSettings, read_settings
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime, default_runtime, set_default_runtime


def open_program(target: str, execution: str | None, settings: Settings) -> loading.ReadyProgram:
    """Load ``target`` and give it its LM. Raises ``ConfigurationError`` that says what is wrong."""
    # Pinned: a program that is loaded later may configure another LM. No history: it would grow for ever.
    return loading.open_program(
        target,
        _lm_settings(settings),
        execution=cast("Execution | None", execution),
        runtime=_runtime(settings),
        pin=True,
        keep_history=False,
    )


def _lm_settings(settings: Settings) -> LMSettings:
    asked = settings.lm
    read = read_settings(lm=asked.model, api_base=asked.api_base, api_key=asked.api_key, simulate=asked.simulate)
    return replace(read, options={**read.options, **asked.options})


def _runtime(settings: Settings) -> Runtime:
    runtime = default_runtime()
    if runtime.max_threads != settings.max_threads:
        runtime = Runtime(layers=runtime.layers, lm_layers=runtime.lm_layers, max_threads=settings.max_threads)
        set_default_runtime(runtime)
    return runtime
