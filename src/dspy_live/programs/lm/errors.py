"""An endpoint's failures as DSPy's own errors, classified as DSPy's engines classify them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from dspy.lm15 import LM15Error
from dspy.utils.exceptions import (
    AdapterParseError,
    ContextWindowExceededError,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMError,
    LMInvalidRequestError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
)

from dspy_live.core.errors import (
    ConfigurationError,
    LiveError,
    LMBadReply,
    LMFailed,
    LMRateLimited,
    LMRefused,
    LMTimeout,
)
from dspy_live.programs.internals import map_http_error, wrap_error
from dspy_live.programs.lm.seam.lm_call import writer
from dspy_live.runtime.http.transport import ConnectTimeout, FirstByteTimeout, IdleTimeout, TransportError
from dspy_live.sansio.openai import ProviderFailed, ReplyError, StreamCut, error_from_reply


@functools.cache
def _dialect() -> Any:
    """DSPy's reader of OpenAI's error bodies; it sends nothing."""
    return writer(None)


def http_error(status: int, headers: Mapping[str, str], body: bytes, model: str, *, now: float) -> LMError:
    """Return DSPy's error for an endpoint's error reply, with status, code, request id and ``retry_after``."""
    reply = error_from_reply(status, headers, body, now=now)
    try:
        error = _dialect().normalize_error(status, body.decode("utf-8", "replace"))
    except Exception:
        error = map_http_error(status, reply.message)
    kept = type(error)
    details = {
        "provider": "openai",
        "provider_code": error.provider_code or reply.code,
        "status": status,
        "request_id": reply.request_id,
        "retry_after": reply.retry_after,
    }
    made = kept(reply.message or str(error), **{k: v for k, v in details.items() if v is not None})
    return wrap_error(made, model=model)


def as_dspy_error(exc: BaseException, model: str) -> BaseException:
    """Return the error of DSPy's that ``exc`` is, or ``exc`` itself where it is none of an endpoint's."""
    if isinstance(exc, (LMError, TypeError, ValueError)) or not isinstance(exc, Exception):
        return exc
    made: BaseException = exc
    if isinstance(exc, LM15Error):
        made = wrap_error(exc, model=model)
    elif isinstance(exc, (ConnectTimeout, FirstByteTimeout, IdleTimeout)):
        made = LMTimeoutError(str(exc), model=model)
    elif isinstance(exc, (TransportError, StreamCut)):
        made = LMTransportError(str(exc), model=model)
    elif isinstance(exc, ProviderFailed) and isinstance(exc.status, int) and exc.status >= 400:
        made = wrap_error(map_http_error(exc.status, str(exc)), model=model)
    elif isinstance(exc, ReplyError):
        made = LMServerError(str(exc), model=model)
    return made


def public_lm_error(exc: BaseException) -> LiveError | None:
    """Return the error that a client may be shown for an LM's failure, ``None`` for any other exception.

    The provider's own words stay in ``__cause__``: they may quote a key.
    """
    for kind, make in _PUBLIC:
        if isinstance(exc, kind):
            error = make()
            after = getattr(exc, "retry_after", None)
            if after is not None:
                error.retry_after = after
            error.__cause__ = exc
            return error
    if isinstance(exc, ValueError) and str(exc).startswith("No LM is loaded"):
        return ConfigurationError("this server has no LM: its operator must configure one")
    return None


# Subclasses before their bases.
_PUBLIC: tuple[tuple[type, Callable[[], LiveError]], ...] = (
    (LMTimeoutError, lambda: LMTimeout("the LM did not answer in time")),
    (LMRateLimitError, lambda: LMRateLimited("the LM's provider is over its rate limit")),
    (LMAuthError, lambda: LMRefused("the LM's provider refused this server's credentials")),
    (LMBillingError, lambda: LMRefused("the LM's provider refused for reasons of billing or quota")),
    (ContextWindowExceededError, lambda: LMRefused("the request is longer than the LM's context window")),
    (LMInvalidRequestError, lambda: LMRefused("the LM's provider refused the request")),
    (LMConfigurationError, lambda: LMRefused("this server's LM is not configured: ask its operator")),
    (LMTransportError, lambda: LMFailed("the LM's endpoint can't be reached, or broke off")),
    (LMError, lambda: LMFailed("the LM's endpoint failed")),
    (AdapterParseError, lambda: LMBadReply("the LM's reply could not be read as the program's output")),
)
