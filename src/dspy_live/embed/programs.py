"""Open the program that the host names: load it, give it an LM, make it a service."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.schema import Schema
from dspy_live.core.service import Service
from dspy_live.embed.wire import Settings
from dspy_live.loading.configure import configure, current_settings
from dspy_live.loading.lm_settings import LMSettings, read_settings
from dspy_live.loading.simulated_lm import simulated_lm
from dspy_live.loading.target import load
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime, default_runtime, set_default_runtime


@dataclass(frozen=True, slots=True)
class Opened:
    """A program that is ready for calls. ``lm`` names the LM that it asks, for people."""

    name: str
    lm: str
    execution: str
    service: Service
    schema: Schema


def open_program(target: str, execution: str | None, settings: Settings) -> Opened:
    """Load ``target`` and give it its LM. Raises ``ConfigurationError`` that says what is wrong."""
    lm = _lm(settings)
    # Read first: the target's own code may look for keys that .env holds.
    loaded = load(target)
    chosen = configure(
        loaded.program,
        simulated=simulated_lm,
        model=lm.model,
        options=lm.options,
        explicit=lm.explicit,
        source=lm.source,
        simulate=lm.simulate,
    )
    # Pinned: a program that is loaded later may configure another LM. No history: it would grow for ever.
    overrides: dict[str, Any] = {**current_settings(), "disable_history": True}
    try:
        service = ProgramService(
            loaded.program,
            name=loaded.name,
            execution=cast("Execution | None", execution),
            runtime=_runtime(settings),
            overrides=overrides,
        )
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{target}: {exc}") from exc
    return Opened(loaded.name, chosen.label, service.execution, service.with_layers(), service.schema)


def _lm(settings: Settings) -> LMSettings:
    asked = settings.lm
    read = read_settings(lm=asked.model, api_base=asked.api_base, api_key=asked.api_key, simulate=asked.simulate)
    return replace(read, options={**read.options, **asked.options})


def _runtime(settings: Settings) -> Runtime:
    runtime = default_runtime()
    if runtime.max_threads != settings.max_threads:
        runtime = Runtime(layers=runtime.layers, lm_layers=runtime.lm_layers, max_threads=settings.max_threads)
        set_default_runtime(runtime)
    return runtime
