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
    import asyncio

    from dspy_live.cli.calls import new_call
    from dspy_live.cli.input.inputs import read_inputs
    from dspy_live.cli.open_program import open_program, warn_if_simulated
    from dspy_live.cli.run_recording import recorded
    from dspy_live.cli.screens.show import show_json, show_outputs
    from dspy_live.core.events import Predicted

    opened = open_program(target, flags)
    values = read_inputs(opened.schema, text, named, inputs)
    timeout = flags.timeout if flags else None
    warn_if_simulated(opened.chosen)

    async def outputs() -> dict[str, object]:
        call = new_call(values, timeout=timeout, stream=False)
        async with opened.service.open(call) as events:
            async for event in events:
                if isinstance(event, Predicted):
                    return event.outputs
        return {}

    with recorded():
        found = asyncio.run(outputs())
    (show_json if json else show_outputs)(found, sys.stdout)
    return 0
