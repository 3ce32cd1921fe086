"""Flags that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Execution = Literal["auto", "native", "thread", "inline"]


@Parameter(name="*", group="Program and LM")
@dataclass(frozen=True)
class ProgramFlags:
    """Flags for the loading of a program, its LM and its runs."""

    lm: str | None = None
    "The model, such as openai/NAME; goes before what the target configures itself."

    api_base: str | None = None
    "Address of an OpenAI-compatible endpoint."

    api_key: str | None = None
    "Its key; DSPY_LIVE_API_KEY keeps it out of the list of processes."

    config: Path | None = None
    "TOML file with a table [lm]: model, api_base, api_key_env, temperature, …"

    sim: Annotated[bool, Parameter(negative="")] = False
    "Answer from the simulated LM, whatever is configured."

    state: Path | None = None
    "State to load into the program: a .json file written by program.save()."

    allow_pickle: Annotated[bool, Parameter(negative="")] = False
    "Load a saved program or state that is a pickle; it can run any code."

    execution: Execution = "auto"
    "How synchronous code is run: in a thread, or inline on the event loop."

    timeout: float | None = None
    "Seconds that one run may take."
