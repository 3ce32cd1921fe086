"""Open the program that a command line names: load it, give it an LM, make it a service."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspy_live.cli.flags import ProgramFlags
from dspy_live.core.errors import ConfigurationError
from dspy_live.core.schema import Schema
from dspy_live.core.service import Service
from dspy_live.loading.lm_settings import LMSettings, read_settings

if TYPE_CHECKING:
    from dspy_live.loading.configure import Chosen
    from dspy_live.loading.target import Loaded


@dataclass(frozen=True, slots=True)
class Opened:
    """A program that is ready for calls, and the LM that it asks."""

    loaded: Loaded
    chosen: Chosen
    service: Service
    schema: Schema


def open_program(target: str, flags: ProgramFlags | None = None, *, served: bool = False, pin: bool = False) -> Opened:
    """Load ``target`` and configure its LM.

    Args:
        target: what names the program.
        flags: the command's.
        served: for a server: DSPy's history does not grow, and errors of the LM are told without its own words.
        pin: keep the LM and the adapter that are configured once this program is loaded, whatever a program
            that is loaded later configures.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` with one line that says what is wrong.
    """
    flags = flags or ProgramFlags()
    if flags.timeout is not None and not flags.timeout > 0:
        raise ConfigurationError(f"--timeout takes a positive number of seconds; got {flags.timeout:g}")
    # Read first: the target's own code may look for keys that .env holds.
    settings = settings_of(flags)

    from dspy_live.loading.configure import current_settings
    from dspy_live.loading.target import load
    from dspy_live.programs.run.program import ProgramService

    loaded = load(target, state=flags.state, allow_pickle=flags.allow_pickle)
    chosen = choose(loaded.program, settings)
    try:
        service = ProgramService(
            loaded.program,
            name=loaded.name,
            execution=flags.execution,
            served=served,
            overrides=current_settings() if pin else None,
        )
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{target}: {exc}") from exc
    return Opened(loaded, chosen, service.with_layers(), service.schema)


def settings_of(flags: ProgramFlags) -> LMSettings:
    """Read the LM's settings from the flags and from what stands behind them."""
    return read_settings(
        lm=flags.lm, api_base=flags.api_base, api_key=flags.api_key, config=flags.config, simulate=flags.sim
    )


def choose(program: Any, settings: LMSettings) -> Chosen:
    """Configure the program's LM as the settings say."""
    from dspy_live.loading.configure import configure
    from dspy_live.loading.simulated_lm import simulated_lm

    return configure(
        program,
        simulated=simulated_lm,
        model=settings.model,
        options=settings.options,
        explicit=settings.explicit,
        source=settings.source,
        simulate=settings.simulate,
    )


def warn_if_simulated(chosen: Chosen) -> None:
    """Say on stderr, in one line, that no real LM answers."""
    if chosen.simulated:
        print(f"dspy-live: answers come from the simulated LM; {how_to_name_one()}", file=sys.stderr)


def how_to_name_one() -> str:
    """Return what to do for a real LM; a provider's key alone does not say which model is wanted, and paid."""
    keys = [name for name in sorted(os.environ) if name.endswith("_API_KEY") and os.environ[name]]
    set_ = f" ({keys[0]} is set, but no model is named)" if keys else ""
    return f"name a real one with --lm, --config or DSPY_LIVE_LM{set_}"
