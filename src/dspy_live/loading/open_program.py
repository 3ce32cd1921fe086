"""Open the program that a target names: load it, choose its LM, make it a service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.schema import Schema
from dspy_live.loading.configure import ChosenLM, configure, current_settings
from dspy_live.loading.lm_settings import LMSettings
from dspy_live.loading.simulated_lm import simulated_lm
from dspy_live.loading.target import LoadedProgram, load
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.execution.execution import Execution
from dspy_live.runtime.runtime import Runtime


@dataclass(frozen=True, slots=True)
class ReadyProgram:
    """A program that is ready for calls.

    Args:
        loaded: the user's program, its name and where it was found.
        lm: the LM that it asks.
        service: runs it; without any layers, see :meth:`ProgramService.layered`.
    """

    loaded: LoadedProgram
    lm: ChosenLM
    service: ProgramService

    @property
    def schema(self) -> Schema:
        """The program's inputs and outputs."""
        return self.service.schema


def open_program(
    target: str,
    settings: LMSettings,
    *,
    state: str | Path | None = None,
    allow_pickle: bool = False,
    execution: Execution | None = None,
    runtime: Runtime | None = None,
    served: bool = False,
    pin: bool = False,
    keep_history: bool = True,
) -> ReadyProgram:
    """Load ``target`` and give it its LM.

    Args:
        target: what names the program; see :mod:`dspy_live.loading.target`.
        settings: which LM is wanted. They are read before: the target's own code may look for keys that ``.env`` holds.
        state: a file written by ``program.save(file)``.
        allow_pickle: read a saved program or state that is a pickle; it can run any code.
        execution: how synchronous code is run.
        runtime: layers and account; the process's own by default.
        served: for a process that goes on: DSPy's history does not grow, and an LM's failure is told without the
            provider's own words.
        pin: keep the LM and the adapter that are configured now, whatever a program that is loaded later configures.
        keep_history: let DSPy keep its history of LM calls, and its trace of predictions.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` with one line that says what is wrong.
    """
    loaded = load(target, state=state, allow_pickle=allow_pickle)
    lm = configure(
        loaded.program,
        simulated=simulated_lm,
        model=settings.model,
        options=settings.options,
        explicit=settings.explicit,
        source=settings.source,
        simulate=settings.simulate,
    )
    overrides: dict[str, Any] = current_settings() if pin else {}
    if not keep_history:
        overrides["disable_history"] = True
    try:
        service = ProgramService(
            loaded.program, name=loaded.name, execution=execution, runtime=runtime, served=served, overrides=overrides
        )
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{target}: {exc}") from exc
    return ReadyProgram(loaded, lm, service)
