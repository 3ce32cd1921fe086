"""How a program can run: natively where all of it can be awaited, else in a thread or inline."""

from __future__ import annotations

import inspect
from typing import Any

import dspy

from dspy_live.runtime.execution.execution import EXECUTIONS, Execution


def choose_execution(program: Any, execution: Execution) -> Execution:
    """Return how a program runs. Raises ``ValueError`` for a way that it can't."""
    if execution not in EXECUTIONS:
        raise ValueError(f"execution must be one of {', '.join(EXECUTIONS)}; got {execution!r}")
    native = _is_native(program)
    if execution == "native" and not native and not _has_own(program, "aforward"):
        raise ValueError(
            f"{type(program).__name__} has no aforward(), so it can't run natively; use execution='thread'"
        )
    if execution == "auto":
        only = isinstance(program, dspy.Module) and not _has_own(program, "forward") and _has_own(program, "aforward")
        return "native" if native or only else "thread"
    if execution in ("thread", "inline") and native and not isinstance(program, dspy.Module):
        name = getattr(program, "__name__", type(program).__name__)
        raise ValueError(f"{name} is a coroutine function, so it can only run natively")
    if execution in ("thread", "inline") and isinstance(program, dspy.Module) and not _has_own(program, "forward"):
        raise ValueError(f"{type(program).__name__} has no forward(), so it can only run natively")
    return execution


def _is_native(program: Any) -> bool:
    """True where every module of the program has an ``aforward``."""
    if not isinstance(program, dspy.Module):
        return inspect.iscoroutinefunction(program)
    return all(_awaits(module) for _, module in program.named_sub_modules(dspy.Module))


def _awaits(module: Any) -> bool:
    """True where a module's ``aforward`` does what its ``forward`` does.

    One inherited from above the class that defines ``forward`` is its parent's program: ``dspy.CodeAct`` has ReAct's,
    which never runs the code.
    """
    if "aforward" in vars(module):
        return True
    names = (name for cls in type(module).__mro__ for name in ("aforward", "forward") if name in vars(cls))
    return next(names, "") == "aforward"


def _has_own(module: Any, name: str) -> bool:
    return callable(getattr(type(module), name, None)) or name in vars(module)
