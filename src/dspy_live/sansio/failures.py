"""What kind of failure it was: worth another try, a sign of overload, or neither."""

from __future__ import annotations

import math

from dspy_live.core.errors import (
    CircuitOpen,
    FirstTokenTimeout,
    IdleTimeout,
    LiveError,
    LMBadReply,
    LMFailed,
    LMRateLimited,
    LMRefused,
    LMTimeout,
    Overloaded,
    ProgramFailed,
    RateLimited,
)
from dspy_live.sansio.openai import ProviderFailed, ReplyError

_TRANSIENT_CODES = frozenset({"transport", "rate_limit", "timeout", "server"})
"""The ``code`` of the errors of DSPy and of its engines that may pass by themselves."""

_TRANSIENT_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_OVERLOAD_STATUS = frozenset({429, 503, 529})


def transient(exc: BaseException) -> bool:
    """True when the LM, or the way to it, failed in a manner that may pass: another try has a chance.

    False for the caller's own mistakes, spent deadlines and budgets, cancellation, a program's own errors,
    and for refusals by a limit of ours, which another try would only meet again. Another exception may say so
    itself, with an attribute ``transient``.
    """
    exc = _root(exc)
    if isinstance(exc, LiveError):
        return _live_transient(exc)
    if isinstance(exc, ProviderFailed):
        return exc.status is None or exc.status in _TRANSIENT_STATUS
    if isinstance(exc, (ReplyError, ConnectionError, TimeoutError)):
        return True
    said = getattr(exc, "transient", None)
    return said if isinstance(said, bool) else _code(exc) in _TRANSIENT_CODES


def overload(exc: BaseException) -> bool:
    """True when the service behind says, or shows by silence, that it has too much to do.

    An exception of another kind may say so itself, with an attribute ``overload``.
    """
    exc = _root(exc)
    if isinstance(exc, LiveError):
        return _live_overload(exc)
    if isinstance(exc, TimeoutError) or getattr(exc, "overload", None) is True:
        return True
    return getattr(exc, "status", None) in _OVERLOAD_STATUS or _code(exc) in ("rate_limit", "timeout")


def retry_after(exc: BaseException) -> float | None:
    """Seconds that the failure asks to wait before another try, or ``None``."""
    value = getattr(_root(exc), "retry_after", None)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    return None


def _live_transient(exc: LiveError) -> bool:
    if exc.details.get("local") or isinstance(exc, (LMRefused, LMBadReply)):
        return False
    if isinstance(exc, LMFailed):
        status = exc.details.get("status")
        return status is None or status in _TRANSIENT_STATUS
    return isinstance(exc, (RateLimited, FirstTokenTimeout, IdleTimeout))


def _live_overload(exc: LiveError) -> bool:
    if exc.details.get("local") or isinstance(exc, CircuitOpen):
        return False
    told = isinstance(exc, LMFailed) and exc.details.get("status") in _OVERLOAD_STATUS
    return told or isinstance(exc, (Overloaded, LMTimeout, LMRateLimited, FirstTokenTimeout, IdleTimeout))


def _code(exc: BaseException) -> str | None:
    code = getattr(exc, "code", None)
    return code if isinstance(code, str) else None


def _root(exc: BaseException) -> BaseException:
    """A program that failed because its LM failed counts as the LM's failure."""
    while isinstance(exc, ProgramFailed) and exc.__cause__ is not None:
        exc = exc.__cause__
    return exc
