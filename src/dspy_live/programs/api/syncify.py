"""``syncify``: an async program for synchronous callers, in place of ``dspy.syncify``; asyncio is left unpatched."""

from __future__ import annotations

from types import MethodType
from typing import Any

import dspy

from dspy_live.programs.run.user_loop import run_coroutine


def syncify(program: Any, in_place: bool = True) -> Any:
    """Return a program whose ``forward`` runs its ``aforward``; it may be called with or without a running loop.

    Args:
        program: a ``dspy.Module`` with an ``aforward``.
        in_place: give ``program`` itself the ``forward``; false returns a wrapper around it.

    Raises ``TypeError`` for a program without an ``aforward``.
    """
    if not hasattr(program, "aforward"):
        raise TypeError(f"{type(program).__name__} has no aforward() to run")
    if not in_place:
        return SyncWrapper(program)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return run_coroutine(lambda: self.aforward(*args, **kwargs))

    program.forward = MethodType(forward, program)
    return program


class SyncWrapper(dspy.Module):
    """A program around an async one."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.program = program

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program's ``acall`` and wait for it."""
        return run_coroutine(lambda: self.program.acall(*args, **kwargs))

    async def aforward(self, *args: Any, **kwargs: Any) -> Any:
        """Await the program itself."""
        return await self.program.acall(*args, **kwargs)
