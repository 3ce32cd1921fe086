"""Which failures pass by themselves, which are overload, and how long they ask to wait."""

from __future__ import annotations

import dspy.utils.exceptions as theirs
import pytest

from dspy_live.core import errors as ours
from dspy_live.sansio.failures import overload, retry_after, transient


def failed(cause: BaseException) -> ours.ProgramFailed:
    error = ours.ProgramFailed("the program failed")
    error.__cause__ = cause
    return error


TABLE = [
    # failure, worth another try, a sign of overload
    (ours.LMFailed("refused"), True, False),
    (ours.LMFailed("busy", status=503), True, True),
    (ours.LMFailed("bad request", status=400), False, False),
    (ours.LMFailed("bad key", status=401), False, False),
    (ours.RateLimited("slow down"), True, True),
    (ours.RateLimited("our own", local=True), False, False),
    (ours.Overloaded("a server's"), False, True),
    (ours.Overloaded("our own queue", local=True), False, False),
    (ours.CircuitOpen("open"), False, False),
    (ours.FirstTokenTimeout("late"), True, True),
    (ours.IdleTimeout("silent"), True, True),
    (ours.DeadlineExceeded("late"), False, False),
    (ours.BudgetExceeded("spent"), False, False),
    (ours.InputError("bad"), False, False),
    (ours.Cancelled("left"), False, False),
    (ours.ProgramFailed("bug"), False, False),
    (failed(KeyError("bug")), False, False),
    (failed(ours.LMFailed("down")), True, False),
    (ConnectionResetError("cut"), True, False),
    (TimeoutError("slow"), True, True),
    (KeyError("bug"), False, False),
    (theirs.LMRateLimitError("429"), True, True),
    (theirs.LMServerError("500", status=500), True, False),
    (theirs.LMServerError("503", status=503), True, True),
    (theirs.LMTimeoutError("slow"), True, True),
    (theirs.LMTransportError("cut"), True, False),
    (theirs.LMAuthError("key"), False, False),
    (theirs.LMInvalidRequestError("bad"), False, False),
    (theirs.ContextWindowExceededError(message="long"), False, False),
    (theirs.LMBillingError("pay"), False, False),
    (failed(theirs.LMTransportError("cut")), True, False),
]


@pytest.mark.parametrize(("failure", "again", "too_much"), TABLE, ids=lambda v: repr(v)[:40])
def test_the_table(failure: BaseException, again: bool, too_much: bool) -> None:
    assert transient(failure) is again
    assert overload(failure) is too_much


def test_dspy_agrees_about_its_own_errors() -> None:
    for failure, again, _ in TABLE:
        if isinstance(failure, theirs.LMError):
            assert theirs.is_retryable_lm_error(failure) is again, failure


def test_how_long_to_wait() -> None:
    assert retry_after(ours.RateLimited("x", retry_after=7)) == 7
    assert retry_after(theirs.LMRateLimitError("x", retry_after=3)) == 3
    assert retry_after(failed(theirs.LMRateLimitError("x", retry_after=3))) == 3
    assert retry_after(ours.LMFailed("x")) is None
    assert retry_after(KeyError("x")) is None
    for bad in (-1, float("nan"), float("inf"), "5", True):
        error = KeyError("x")
        error.retry_after = bad  # type: ignore[attr-defined]
        assert retry_after(error) is None
