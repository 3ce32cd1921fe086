"""What a client of a server may be told of an LM's failure: which kind it was, and not what was said."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

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

from dspy_live.core.call import Call
from dspy_live.core.errors import LiveError, LMFailed, RateLimited
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service

logger = logging.getLogger("dspy_live.programs")


class LMTimedOut(LMFailed):
    """The LM did not answer in the time that its settings give it."""

    code = "lm_timeout"
    status = 504


_SAID: tuple[tuple[type[BaseException], str], ...] = (
    (ContextWindowExceededError, "the inputs are too long for the LM"),
    (LMAuthError, "the LM's endpoint refused this server's key"),
    (LMBillingError, "the LM's endpoint refused for reasons of billing"),
    (LMConfigurationError, "the LM is not configured as it must be"),
    (LMTransportError, "the LM could not be reached, or the connection to it broke"),
    (LMServerError, "the LM's endpoint failed"),
    (LMInvalidRequestError, "the LM's endpoint refused the request"),
    (AdapterParseError, "the LM's reply was not in the format that it was asked for"),
)


def public_failure(exc: BaseException) -> BaseException:
    """Return the :class:`LiveError` that an LM's failure is at a server's door; anything else as it is.

    The provider's own words stay inside: they can quote keys, prompts and addresses. ``exc`` is the
    ``__cause__`` of what is returned.
    """
    if not isinstance(exc, (LMError, AdapterParseError)):
        return exc
    failure: LiveError
    status = getattr(exc, "status", None)
    if isinstance(exc, LMRateLimitError):
        failure = RateLimited("the LM's provider limits the rate of calls", retry_after=exc.retry_after)
    elif isinstance(exc, LMTimeoutError):
        failure = LMTimedOut("the LM did not answer in time")
    else:
        said = next((text for kind, text in _SAID if isinstance(exc, kind)), "the LM failed")
        failure = LMFailed(said, status=status)
    failure.__cause__ = exc
    return failure


class PublicErrors:
    """A layer for servers: the LM's failures become errors with a code, and are logged with the run's id."""

    kind = "public_errors"

    def __init__(self, service: Service) -> None:
        self._service = service

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Receiver[Event]]:
        """Open the inner service; what it raises is turned where it is raised."""
        async with self._service.open(call) as events:
            yield _Receiver(events, call)


class _Receiver:
    __slots__ = ("_call", "_inner")

    def __init__(self, inner: Receiver[Event], call: Call) -> None:
        self._inner = inner
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __aiter__(self) -> _Receiver:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._inner.__anext__()
        except (LMError, AdapterParseError) as exc:
            raise self._turned(exc) from exc

    async def receive_many(self) -> list[Event]:
        """As the inner receiver's."""
        try:
            return await self._inner.receive_many()
        except (LMError, AdapterParseError) as exc:
            raise self._turned(exc) from exc

    def _turned(self, exc: BaseException) -> BaseException:
        logger.warning("run %s: %s: %s", self._call.id, type(exc).__name__, exc)
        return public_failure(exc)
