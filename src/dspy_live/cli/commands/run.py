"""``dspy-live run``: one run, its outputs on stdout."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from dspy_live.cli.flags import ProgramFlags


def run(
    target: str,
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    inputs: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    flags: ProgramFlags | None = None,
    **named: str,
) -> int:
    """Run a program once and print its outputs.

    Args:
        target: file.py:object, package.module:object, a saved program's folder or 'question -> answer'.
        text: goes to the program's first required input; - reads it from stdin.
        inputs: all inputs as a JSON object, @FILE for one in a file, - for one on stdin.
        json: print the outputs as one JSON object.
        named: one input each, as --name value.
    """
    from dspy_live.cli.input.inputs import read_inputs
    from dspy_live.cli.open_program import open_program, warn_if_simulated
    from dspy_live.cli.run_recording import run_recording
    from dspy_live.cli.screens.run_screens import print_json, print_outputs
    from dspy_live.cli.single_run import run_once

    flags = flags or ProgramFlags()
    program = open_program(target, flags)
    values = read_inputs(program.schema, text, named, inputs)
    warn_if_simulated(program.lm)
    with run_recording():
        result = run_once(program, values, timeout=flags.timeout, stream=False)
    (print_json if json else print_outputs)(result.outputs, sys.stdout)
    return 0
