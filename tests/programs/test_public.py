"""What a server's client is told when the LM fails: a code, and none of the provider's words."""

from __future__ import annotations

import dspy
import pytest
from dspy.utils import exceptions as of_dspy

from dspy_live.core.call import Call
from dspy_live.core.errors import LiveError
from dspy_live.programs.program import ProgramService
from dspy_live.programs.public import PublicErrors, public_failure

SECRET = "sk-very-secret-words"


@pytest.mark.parametrize(
    ("failure", "code", "status"),
    [
        (dspy.LMRateLimitError(SECRET, retry_after=7), "rate_limited", 429),
        (dspy.LMTimeoutError(SECRET), "lm_timeout", 504),
        (dspy.LMAuthError(SECRET), "lm_failed", 502),
        (dspy.LMTransportError(SECRET), "lm_failed", 502),
        (dspy.LMNotConfiguredError(SECRET), "lm_failed", 502),
        (dspy.ContextWindowExceededError(model="m", message=SECRET), "lm_failed", 502),
        (dspy.LMUnexpectedError(SECRET), "lm_failed", 502),
        (
            dspy.AdapterParseError("ChatAdapter", dspy.Signature("a -> b"), SECRET, SECRET),
            "lm_failed",
            502,
        ),
    ],
)
def test_each_kind_has_its_code_and_keeps_its_words_inside(failure: Exception, code: str, status: int) -> None:
    told = public_failure(failure)
    assert isinstance(told, LiveError)
    assert (told.code, told.status, told.public) == (code, status, True)
    assert SECRET not in told.message
    assert told.__cause__ is failure


def test_every_error_of_an_lm_that_dspy_has_is_told() -> None:
    kinds = [k for k in vars(of_dspy).values() if isinstance(k, type) and issubclass(k, of_dspy.LMError)]
    assert len(kinds) > 10
    for kind in kinds:
        failure = kind.__new__(kind)
        Exception.__init__(failure, SECRET)
        failure.__dict__.update({"retry_after": None, "status": None})
        told = public_failure(failure)
        assert isinstance(told, LiveError)
        assert SECRET not in told.message


def test_the_providers_wait_is_passed_on() -> None:
    assert getattr(public_failure(dspy.LMRateLimitError("x", retry_after=7)), "retry_after", None) == 7


def test_a_programs_own_exception_stays_what_it_is() -> None:
    own = ValueError("mine")
    assert public_failure(own) is own


async def test_the_layer_turns_what_the_receiver_raises_and_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(dspy.Module):
        async def aforward(self, question: str) -> None:
            raise dspy.LMServerError("the provider's words")

    call = Call({"question": "x"})
    async with PublicErrors(ProgramService(Broken())).open(call) as events:
        with pytest.raises(LiveError) as caught:
            async for _ in events:
                pass
    assert caught.value.code == "lm_failed"
    assert call.id in caplog.text
    assert "the provider's words" in caplog.text
