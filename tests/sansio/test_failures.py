"""Which failures pass by themselves, which are overload, and how long they ask to wait."""

from __future__ import annotations

import dspy.lm15 as engines
import dspy.utils.exceptions as theirs
import pytest

from dspy_live.core import errors as ours
from dspy_live.programs.lm.errors import as_dspy_error
from dspy_live.programs.lm.lm import LM
from dspy_live.runtime.http import errors as wire
from dspy_live.sansio import openai
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
    (ours.LMTimeout("slow"), True, True),
    (ours.LMRateLimited("429"), True, True),
    (ours.LMRefused("key"), False, False),
    (ours.LMBadReply("nonsense"), False, False),
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
    (wire.ConnectFailed("host:1", "refused"), True, False),
    (wire.ConnectionBroken("host:1", "cut", received=True), True, False),
    (wire.FirstByteTimeout("host:1", "silent"), True, True),
    (wire.IdleTimeout("host:1", "silent"), True, True),
    (wire.Redirected("host:1", 302, "elsewhere"), False, False),
    (wire.BodyTooLarge("host:1", "too large"), False, False),
    (openai.StreamCut("cut"), True, False),
    (openai.MalformedReply("no JSON"), True, False),
    (openai.ProviderFailed("overloaded", status=529), True, True),
    (openai.ProviderFailed("bad request", status=400), False, False),
    (openai.ProviderFailed("?"), True, False),
    (engines.RateLimitError("429"), True, True),
    (engines.ServerError("500"), True, False),
    (engines.TimeoutError("slow"), True, True),
    (engines.AuthError("key"), False, False),
    (engines.InvalidRequestError("bad"), False, False),
]


@pytest.mark.parametrize(("failure", "again", "too_much"), TABLE, ids=lambda v: repr(v)[:40])
def test_the_table(failure: BaseException, again: bool, too_much: bool) -> None:
    assert transient(failure) is again
    assert overload(failure) is too_much


def test_dspy_agrees_about_its_own_errors() -> None:
    for failure, again, _ in TABLE:
        if isinstance(failure, theirs.LMError):
            assert theirs.is_retryable_lm_error(failure) is again, failure


def test_layers_around_an_lm_see_failures_as_the_engine_does() -> None:
    """Inside of the layers a failure is still the transport's or the parser's own; outside it is DSPy's."""
    lm = LM("openai/x")
    for failure, again, _ in TABLE:
        theirs_now = as_dspy_error(failure, lm) if isinstance(failure, Exception) else None
        if isinstance(theirs_now, theirs.LMError) and not isinstance(failure, (wire.Redirected, wire.BodyTooLarge)):
            assert theirs.is_retryable_lm_error(theirs_now) is again, failure


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
