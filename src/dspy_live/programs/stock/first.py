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
    own: Mapping[str, Any] = object.__getattribute__(program, "__dict__")  # past DSPy's own look at each attribute
    if not (_is_ours(program, own, args) and modules.is_quiet(own, here)):
        usual: Awaitable[Any] = program.acall(*args, **inputs)
        return usual
    here["caller_modules"] = [*(here["caller_modules"] or ()), program]
    kept = "aforward" not in own and "_dspy_live" in dspy.Predict.aforward.__dict__
    if kept and type(program) is dspy.Predict and not args:
        return answered(program, dict(inputs))
    direct: Awaitable[Any] = program.aforward(*args, **inputs)
    return direct


def _is_ours(program: Any, own: Mapping[str, Any], args: tuple[Any, ...]) -> bool:
    """True where ``program.acall`` comes to ours in the place of ``dspy.Module.acall``, and to no other."""
    acall = type(program).acall
    if acall is _ACALL_OF_PREDICT and not args:
        acall = dspy.Module.acall
    return acall is dspy.Module.acall and "_dspy_live" in acall.__dict__ and "acall" not in own
