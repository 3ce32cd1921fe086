"""From an exception to the failure that the host gets. The host is the program's own process: nothing is hidden."""

from __future__ import annotations

import asyncio
import traceback

from dspy_live.core.errors import Cancelled, LiveError, ProgramFailed, Stop
from dspy_live.embed.wire import Failure
from dspy_live.programs.lm.errors import public_lm_error


def failure_of(exc: BaseException) -> Failure:
    """Return the kind, message, code and traceback of ``exc``."""
    if isinstance(exc, Stop):
        exc = exc.error
    if isinstance(exc, asyncio.CancelledError):
        exc = Cancelled("the run was cancelled")
    known = exc if isinstance(exc, LiveError) else public_lm_error(exc)
    return Failure(
        kind=_kind(exc),
        message=_text(exc) or _kind(exc),
        code=known.code if isinstance(known, LiveError) else ProgramFailed.code,
        traceback="".join(traceback.format_exception(exc)).rstrip(),
        retry_after=known.retry_after if isinstance(known, LiveError) else None,
    )


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # a user's own __str__; the failure that it was to describe is the one to tell
        return ""


def _kind(exc: BaseException) -> str:
    cls = type(exc)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
