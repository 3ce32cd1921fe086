"""One run of a program for a command, on a screen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from dspy_live.cli.screens.run_screens import Screen
from dspy_live.core.call import Call
from dspy_live.core.events import Predicted
from dspy_live.core.service import Service, compose
from dspy_live.layers.deadline import Deadline
from dspy_live.loading.open_program import ReadyProgram
from dspy_live.runtime.scope import Scope


def run_once(
    program: ReadyProgram,
    inputs: Mapping[str, Any],
    make_screen: Callable[[Scope], Screen] = Screen,
    *,
    timeout: float | None = None,
    stream: bool = True,
) -> Predicted:
    """Run ``program`` on an event loop of its own; Ctrl-C cancels it, its LM call included. Returns its result.

    Args:
        program: what to run.
        inputs: by name, checked.
        make_screen: makes the sink of the run's events in the run's scope.
        timeout: seconds that the run may take.
        stream: whether tokens are wanted.
    """
    service = compose(program.service.layered(), [Deadline(timeout)] if timeout is not None else [])
    return asyncio.run(run_on_screen(service, Call(inputs, stream=stream), make_screen))


async def run_on_screen(service: Service, call: Call, make_screen: Callable[[Scope], Screen]) -> Predicted:
    """Await ``service`` with a screen as its sink, print the result and return it."""
    with Scope() as scope:
        screen = make_screen(scope)
        try:
            result = await service(call, screen)
            assert isinstance(result, Predicted)
            screen.finish(result)
            return result
        finally:
            screen.close()
