"""A run's own program, the first module that it calls: as ``dspy.Module.acall`` calls it, with less to keep."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

import dspy

from dspy_live.programs.internals import overrides
from dspy_live.programs.stock import modules
from dspy_live.programs.stock.predict import answered

_ACALL_OF_PREDICT = dspy.Predict.acall
"""Calls ``dspy.Module.acall`` with the arguments that have names; it refuses others."""


def called_first(program: Any, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> Awaitable[Any]:
    """Return what ``program.acall(*args, **inputs)`` returns, for the first call of a run.

    To be called in the run, before anything else of it has its settings: the program is noted in themselves as the
    calling module, where ``acall`` makes a copy of them, and ``aforward`` is awaited without the coroutines around it.
    A subclass, a callback or a wrapped method takes the usual way.

    Args:
        program: a module.
        args: its positional arguments.
        inputs: its arguments by name.
    """
    here = overrides()
    if not (_is_ours(program, args) and modules.is_quiet(program, here)):
        usual: Awaitable[Any] = program.acall(*args, **inputs)
        return usual
    here["caller_modules"] = [*(here["caller_modules"] or ()), program]
    if type(program) is dspy.Predict and not args and _stands_for(dspy.Predict.aforward, "aforward", program):
        return answered(program, dict(inputs))
    direct: Awaitable[Any] = program.aforward(*args, **inputs)
    return direct


def _is_ours(program: Any, args: tuple[Any, ...]) -> bool:
    """True where ``program.acall`` comes to ours in the place of ``dspy.Module.acall``, and to no other."""
    acall = type(program).acall
    if acall is _ACALL_OF_PREDICT and not args:
        acall = dspy.Module.acall
    return acall is dspy.Module.acall and _stands_for(acall, "acall", program)


def _stands_for(method: Any, name: str, program: Any) -> bool:
    """True for a method of ours in the place of DSPy's that a program has not replaced by one of its own."""
    return "_dspy_live" in vars(method) and name not in vars(program)
