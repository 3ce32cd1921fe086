"""Open the program that a command line names, with the command's flags."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dspy_live.cli.flags import ProgramFlags
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.lm_settings import LMSettings, load_dotenv, read_settings

if TYPE_CHECKING:
    from dspy_live.loading.config.read import ConfigFile
    from dspy_live.loading.configure import ChosenLM
    from dspy_live.loading.open_program import ReadyProgram


def open_program(
    target: str, flags: ProgramFlags | None = None, *, served: bool = False, pin: bool = False
) -> ReadyProgram:
    """Load ``target`` and configure its LM; see :func:`dspy_live.loading.open_program.open_program`.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` with one line that says what is wrong.
    """
    flags = flags or ProgramFlags()
    if flags.timeout is not None and not flags.timeout > 0:
        raise ConfigurationError(f"--timeout takes a positive number of seconds; got {flags.timeout:g}")
    settings = settings_of(flags)

    from dspy_live.loading import open_program as loading

    return loading.open_program(
        target,
        settings,
        state=flags.state,
        allow_pickle=flags.allow_pickle,
        execution=flags.execution,
        served=served,
        pin=pin,
    )


def settings_of(flags: ProgramFlags, file: ConfigFile | None = None, *, simulate: bool = False) -> LMSettings:
    """Read the LM's settings from the flags and from what stands behind them.

    Args:
        flags: the flags; without ``file``, ``flags.config`` names the one that is read, for its table ``[lm]``.
        file: a configuration that has been read already.
        simulate: answer from the simulated LM, though ``--sim`` is not given.
    """
    if file is None and flags.config is not None:
        from dspy_live.loading.config.read import read_config

        load_dotenv(Path(".env"), os.environ)
        file = read_config(flags.config, for_server=False)
    return read_settings(
        lm=flags.lm, api_base=flags.api_base, api_key=flags.api_key, file=file, simulate=simulate or flags.sim
    )


def warn_if_simulated(lm: ChosenLM) -> None:
    """Say on stderr, in one line, that no real LM answers."""
    if lm.simulated:
        print(f"dspy-live: answers come from the simulated LM; {how_to_name_one()}", file=sys.stderr)


def how_to_name_one() -> str:
    """Return how to name a real LM; a provider's key alone does not say which model is wanted, and paid."""
    keys = [name for name in sorted(os.environ) if name.endswith("_API_KEY") and os.environ[name]]
    found = f" ({keys[0]} is set, but no model is named)" if keys else ""
    return f"name a real one with --lm, --config or DSPY_LIVE_LM{found}"
