"""What kind of failure it was: worth another try, a sign of overload, or neither."""

from __future__ import annotations

import math

from dspy_live.core.errors import (
    CircuitOpen,
    FirstTokenTimeout,
    IdleTimeout,
    LiveError,
    LMFailed,
    Overloaded,
    ProgramFailed,
    RateLimited,
)

_TRANSIENT_CODES = frozenset({"transport", "rate_limit", "timeout", "server"})
"""The ``code`` of the LM errors of DSPy that may pass by themselves."""

_TRANSIENT_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_OVERLOAD_STATUS = frozenset({429, 503, 529})


def transient(exc: BaseException) -> bool:
    """True when the LM, or the way to it, failed in a manner that may pass: another try has a chance.

    False for the caller's own mistakes, spent deadlines and budgets, cancellation, a program's own errors,
    and for refusals by a limit of ours, which another try would only meet again.
    """
    exc = _root(exc)
    if isinstance(exc, LiveError):
        if exc.details.get("local"):
            return False
        if isinstance(exc, LMFailed):
            status = exc.details.get("status")
            return status is None or status in _TRANSIENT_STATUS
        return isinstance(exc, (RateLimited, FirstTokenTimeout, IdleTimeout))
    if isinstance(exc, (ConnectionError, TimeoutError)):
        return True
    return getattr(exc, "code", None) in _TRANSIENT_CODES


def overload(exc: BaseException) -> bool:
    """True when the service behind says, or shows by silence, that it has too much to do."""
    exc = _root(exc)
    if isinstance(exc, LiveError) and exc.details.get("local"):
        return False
    if isinstance(exc, (RateLimited, FirstTokenTimeout, IdleTimeout, TimeoutError)):
        return True
    if isinstance(exc, Overloaded):
        return not isinstance(exc, CircuitOpen)
    status = exc.details.get("status") if isinstance(exc, LMFailed) else getattr(exc, "status", None)
    return status in _OVERLOAD_STATUS or getattr(exc, "code", None) in ("rate_limit", "timeout")


def retry_after(exc: BaseException) -> float | None:
    """Seconds that the failure asks to wait before another try, or ``None``."""
    value = getattr(_root(exc), "retry_after", None)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    return None


def _root(exc: BaseException) -> BaseException:
    """A program that failed because its LM failed counts as the LM's failure."""
    while isinstance(exc, ProgramFailed) and exc.__cause__ is not None:
        exc = exc.__cause__
    return exc
