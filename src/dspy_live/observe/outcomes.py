"""How a run, a module or a tool has ended, in the words of spans and metrics."""

from __future__ import annotations

import asyncio

from dspy_live.core.errors import Cancelled, Stop
from dspy_live.core.observer import RunRecord
from dspy_live.observe import semconv

_LEFT = (Cancelled, asyncio.CancelledError, GeneratorExit)


def outcome_and_error(error: BaseException | None) -> tuple[str, str]:
    """Return ``"ok"``, ``"error"`` or ``"cancelled"``, and the class of an error.

    What its caller has left is cancelled and no error. The class only: a message may quote the user's question.
    """
    if isinstance(error, Stop):
        error = error.error
    if error is None:
        return semconv.OK, ""
    return (semconv.CANCELLED, "") if isinstance(error, _LEFT) else (semconv.ERROR, type(error).__name__)


def of_run(record: RunRecord) -> tuple[str, str]:
    """Return the same of a run. One without outputs and without an error was left before its end."""
    if record.error is None:
        return semconv.CANCELLED if record.outputs is None else semconv.OK, ""
    return outcome_and_error(record.error)
