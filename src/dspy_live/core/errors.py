"""Errors that say whose fault it is. The HTTP status and the code of a reply follow from the class.

Two kinds: :class:`LiveError` is what a caller catches. :class:`Stop` is what a *program* sees when
its run is over (cancelled, out of time, out of budget); it is a ``BaseException`` so that a program's
``except Exception`` cannot swallow it, and it becomes the error it carries at the front door.
"""

from __future__ import annotations

from typing import Any, ClassVar


class LiveError(Exception):
    """Base of every error that dspy-live raises to a caller.

    ``code`` is stable and meant for programs, the message is for people. ``status`` is the HTTP
    status that a server answers with; ``retry_after`` is in seconds, ``None`` when there is nothing
    to wait for. ``public`` says whether the message may be shown to a client.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    public: ClassVar[bool] = True
    retry_after: float | None = None

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if retry_after is not None:
            self.retry_after = retry_after


class ConfigurationError(LiveError):
    """What was asked for at start-up can't work: an unknown target, a wrong limit, no LM."""

    code = "configuration"


class InputError(LiveError):
    """The caller's inputs don't fit. ``details`` has ``field`` and ``expected``, and ``errors`` for several."""

    code = "invalid_input"
    status = 422


class NotFound(LiveError):
    """No such program, run or route."""

    code = "not_found"
    status = 404


class Unauthorized(LiveError):
    """No key, or a wrong one."""

    code = "unauthorized"
    status = 401


class TooLarge(LiveError):
    """The request's body is over the limit that the message names."""

    code = "too_large"
    status = 413


class Overloaded(LiveError):
    """There is no room for this call now; try again after ``retry_after`` seconds."""

    code = "overloaded"
    status = 503
    retry_after = 1.0


class RateLimited(Overloaded):
    """The caller, or the LM's provider, is over a rate limit."""

    code = "rate_limited"
    status = 429


class CircuitOpen(Overloaded):
    """The service behind has failed too often lately; calls are refused without asking it."""

    code = "circuit_open"


class Draining(Overloaded):
    """The server is shutting down and takes no new runs."""

    code = "draining"


class DeadlineExceeded(LiveError):
    """The call's time is up."""

    code = "deadline_exceeded"
    status = 504


class FirstTokenTimeout(DeadlineExceeded):
    """The LM did not begin to answer in time."""

    code = "first_token_timeout"


class IdleTimeout(DeadlineExceeded):
    """The LM began to answer and then fell silent for too long."""

    code = "idle_timeout"


class BudgetExceeded(LiveError):
    """A budget in money, tokens or calls is spent; the message says which, and how much."""

    code = "budget_exceeded"
    status = 402


class LMFailed(LiveError):
    """The LM's endpoint failed: unreachable, refused, or answered with an error."""

    code = "lm_failed"
    status = 502


class LMTimeout(LMFailed):
    """The LM's endpoint did not answer in time."""

    code = "lm_timeout"
    status = 504


class LMRateLimited(LMFailed):
    """The LM's provider is over its rate limit for us; ``retry_after`` is what it asked for."""

    code = "lm_rate_limited"
    status = 503
    retry_after = 1.0


class LMRefused(LMFailed):
    """The LM's endpoint refused the request: credentials, model, size or options."""

    code = "lm_refused"


class LMBadReply(LMFailed):
    """The LM answered, and its reply could not be read as the program's output."""

    code = "lm_bad_reply"


class LMTruncated(LMBadReply):
    """The LM's reply was cut at its limit of tokens, and an output that the program must give is missing or empty."""

    code = "lm_truncated"


class ProgramFailed(LiveError):
    """The user's program raised. The original is ``__cause__``; its text is not shown to clients."""

    code = "program_failed"
    status = 500
    public = False


class StreamBroken(LiveError):
    """The stream broke after the first token, and this door can't take words back."""

    code = "stream_broken"
    status = 502


class Cancelled(LiveError):
    """The run was cancelled, by its caller or by an operator."""

    code = "cancelled"
    status = 499


class Closed(LiveError):
    """This end of the channel was closed by its own side; using it now is a mistake of that side."""

    code = "closed"


class LifecycleError(LiveError):
    """Events came in an order that the lifecycle table does not allow: a bug on the sending side."""

    code = "lifecycle"


class Stop(BaseException):
    """Raised inside a program whose run is over. Not an ``Exception``, so that it can't be swallowed.

    ``error`` is what the caller of the run gets: :class:`Cancelled`, :class:`DeadlineExceeded`,
    :class:`BudgetExceeded`.
    """

    def __init__(self, error: LiveError) -> None:
        super().__init__(error.message)
        self.error = error
