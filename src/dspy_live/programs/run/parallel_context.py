"""OpenTelemetry's context in the threads of ``dspy.Parallel``, so that spans which are made there have their parent.

``dspy.Parallel``, ``Module.batch`` and ``dspy.Evaluate`` hand DSPy's settings to their threads and no other context
variable. DSPy has no seam there. So the first run that is traced puts the method of :func:`keep_context_in_parallel`
in the place of ``ParallelExecutor.execute``. It acts inside of runs only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from opentelemetry import context

from dspy_live.programs.internals import ParallelExecutor
from dspy_live.programs.run.run import current_run


def keep_context_in_parallel() -> None:
    """Let what runs in DSPy's own threads see the context of who has begun them. Again, it does nothing."""
    original: Callable[..., Any] = ParallelExecutor.execute
    if getattr(original, "_dspy_live", False):
        return

    @functools.wraps(original)
    def execute(self: Any, function: Callable[..., Any], data: Any) -> Any:
        return original(self, _bound(function) if current_run() is not None else function, data)

    execute._dspy_live = True  # type: ignore[attr-defined]
    ParallelExecutor.execute = execute


def _bound(function: Callable[..., Any]) -> Callable[..., Any]:
    here = context.get_current()

    @functools.wraps(function)
    def within(*arguments: Any, **named: Any) -> Any:
        token = context.attach(here)
        try:
            return function(*arguments, **named)
        finally:
            context.detach(token)

    return within
