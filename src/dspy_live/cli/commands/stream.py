"""``dspy-live stream``: one run, its tokens on stdout as they come."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dspy_live.cli.flags import ProgramFlags

if TYPE_CHECKING:
    from dspy_live.runtime.scope import Scope


def stream(
    target: str,
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    inputs: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    status: Annotated[bool, Parameter(negative="")] = False,
    flags: ProgramFlags | None = None,
    **named: str,
) -> int:
    """Run a program once and print its tokens as they come.

    Args:
        target: file.py:object, package.module:object, a saved program's folder or 'question -> answer'.
        text: goes to the program's first required input; - reads it from stdin.
        inputs: all inputs as a JSON object, @FILE for one in a file, - for one on stdin.
        json: print every event as one line of JSON.
        status: print status messages and tool calls on stderr.
        named: one input each, as --name value.
    """
    from dspy_live.cli.input.inputs import read_inputs
    from dspy_live.cli.open_program import open_program, warn_if_simulated
    from dspy_live.cli.run_recording import run_recording
    from dspy_live.cli.screens.run_screens import JsonLines, Screen, Terminal
    from dspy_live.cli.single_run import run_once

    flags = flags or ProgramFlags()
    program = open_program(target, flags)
    values = read_inputs(program.schema, text, named, inputs)
    warn_if_simulated(program.lm)

    def screen(scope: Scope) -> Screen:
        if json:
            return JsonLines(scope, sys.stdout)
        return Terminal(scope, program.schema, sys.stdout, sys.stderr if status else None)

    with run_recording():
        run_once(program, values, screen, timeout=flags.timeout)
    return 0
