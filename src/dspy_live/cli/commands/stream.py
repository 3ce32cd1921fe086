"""``dspy-live stream``: one run, its tokens on stdout as they come."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from dspy_live.cli.flags import ProgramFlags


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
    import asyncio

    from dspy_live.cli.calls import new_call
    from dspy_live.cli.input.inputs import read_inputs
    from dspy_live.cli.open_program import open_program, warn_if_simulated
    from dspy_live.cli.run_recording import recorded
    from dspy_live.cli.screens.show import JsonLines, Terminal

    opened = open_program(target, flags)
    values = read_inputs(opened.schema, text, named, inputs)
    timeout = flags.timeout if flags else None
    warn_if_simulated(opened.chosen)
    screen = JsonLines(sys.stdout) if json else Terminal(opened.schema, sys.stdout, sys.stderr if status else None)

    async def follow() -> None:
        # A terminal can't take words back: the program is retried and falls back before the first token only.
        call = new_call(values, timeout=timeout, stream=True, restartable=json)
        async with opened.service.open(call) as events:
            async for event in events:
                screen.show(event)

    try:
        with recorded():
            asyncio.run(follow())
    finally:
        screen.end()
    return 0
