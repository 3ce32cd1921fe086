"""Open the programs of the file: load each, give it its LM, make the layers around both."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.config.layers import LayerMaker
from dspy_live.loading.config.lms import DEFAULT, LMs
from dspy_live.loading.config.read import ConfigFile
from dspy_live.loading.config.shape import ProgramTable
from dspy_live.loading.lm_settings import LMSettings
from dspy_live.loading.open_program import ReadyProgram, open_program
from dspy_live.runtime.runtime import Runtime, default_runtime
from dspy_live.server.served import is_name


@dataclass(frozen=True, slots=True)
class OpenedProgram:
    """A program of the file, ready to be served.

    Args:
        ready: the program, its LM and its service, whose runtime has the layers.
        deadline: seconds for each run, or ``None``.
        hold_text: give its text out at the end only, where words can't be taken back.
    """

    ready: ReadyProgram
    deadline: float | None = None
    hold_text: bool = False


def open_programs(
    file: ConfigFile,
    programs: Mapping[str, ProgramTable],
    settings: LMSettings,
    maker: LayerMaker,
    *,
    one_lm: bool = False,
) -> dict[str, OpenedProgram]:
    """Open ``programs``, in their order. A name that is empty becomes the program's own.

    Args:
        file: says where files are, and which LMs there are.
        programs: by name; those of the file are :func:`located` before.
        settings: the LM of programs that name none.
        maker: makes the layers.
        one_lm: that LM is for all programs, whatever they name.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for the first program that can't be opened.
    """
    _set_prices(file)
    lms = LMs(file, maker)
    opened: dict[str, OpenedProgram] = {}
    for given, table in programs.items():
        lm = DEFAULT if table.lm is None or one_lm else table.lm
        runtime = _runtime(given, table, lms, lm, maker)
        ready = open_program(
            table.target,
            settings if lm == DEFAULT else lms.settings(lm),
            state=table.state,
            allow_pickle=table.allow_pickle,
            execution=table.execution,
            runtime=runtime,
            served=True,
            pin=len(programs) > 1 or lm != DEFAULT,
        )
        opened[given] = OpenedProgram(ready, table.layers.deadline, table.hold_text)
    return opened


def named(programs: Mapping[str, OpenedProgram]) -> dict[str, OpenedProgram]:
    """Return the programs under the names that they are served by.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for a name that can't be, or that two of them have.
    """
    found: dict[str, OpenedProgram] = {}
    for given, program in programs.items():
        target = program.ready.loaded.target
        name = program.ready.loaded.name if given.startswith(UNNAMED) else given
        if not is_name(name):
            raise ConfigurationError(
                f"{name!r} can't stand in an address; give the program another name: NAME={target}"
            )
        if name in found:
            raise ConfigurationError(f"two programs are called {name!r}; name them apart: first={target} second=…")
        found[name] = program
    return found


UNNAMED = "="
"""Begins what stands for the name of a program that has none yet."""


def _runtime(name: str, table: ProgramTable, lms: LMs, lm: str, maker: LayerMaker) -> Runtime | None:
    layers, lm_layers = maker.program(name, table.layers), lms.layers(lm)
    if not layers and not lm_layers:
        return None
    usual = default_runtime()
    return Runtime(layers=layers or usual.layers, lm_layers=lm_layers or usual.lm_layers, account=usual.account)


def located(file: ConfigFile, table: ProgramTable) -> ProgramTable:
    """Return a program of the file, whose own files lie beside the configuration where they are not absolute."""
    state = None if table.state is None else str(file.near(table.state))
    return msgspec.structs.replace(table, target=_target(file, table.target), state=state)


def _target(file: ConfigFile, target: str) -> str:
    if file.path is None or "->" in target:
        return target
    where, separator, name = target.rpartition(":") if ":" in target else (target, "", "")
    near = file.near(where)
    if Path(where).suffix == ".py" or near.is_dir():
        return f"{near}{separator}{name}"
    folder = str(file.path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return target


def _set_prices(file: ConfigFile) -> None:
    prices = {
        model: {
            name: value
            for name in ("input", "output", "cached_input", "cache_write", "reasoning")
            if (value := getattr(table, name)) is not None
        }
        for model, table in file.config.prices.items()
    }
    if prices:
        default_runtime().account.prices.set(prices)
