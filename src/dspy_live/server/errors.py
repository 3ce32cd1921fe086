"""From an exception to what a client is told: a status, a JSON body, never a traceback or a key."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

from dspy_live.core.errors import Cancelled, InputError, LiveError, LMTruncated, ProgramFailed, Stop
from dspy_live.observe.redact import redact
from dspy_live.server.keys.rate_headers import rate_limit_headers
from dspy_live.server.log_fields import log_fields

log = logging.getLogger("dspy_live.server")

# Stricter than what is logged: shorter keys, too.
_SECRET = re.compile(
    r"(?i)\b(?:sk|pk|rk|gsk|xai|key|api)[-_](?=[\w*-]*\d)[\w*-]{6,}"
    r"|(?<=\bbearer )[^\s\"',}]+"
    r"|(?<=api[-_]key[=:])\s*[^\s\"',}]+"
)
_HIDDEN = "the program failed; the server's log has the details under this run's id"


class BadRequest(LiveError):
    """The request can't be read: its body is no JSON object, or a header is malformed."""

    code = "bad_request"
    status = 400


class Unsupported(BadRequest):
    """The request asks for something that a program can't do. ``details`` has ``param``, its name."""

    code = "unsupported_parameter"


class RequestTimeout(LiveError):
    """The body did not arrive in time."""

    code = "request_timeout"
    status = 408


class Forbidden(LiveError):
    """A page of another origin asked, and the server was not told to serve it."""

    code = "forbidden"
    status = 403


class Gone(LiveError):
    """The events that were asked for are no longer kept."""

    code = "gone"
    status = 410


class MethodNotAllowed(LiveError):
    """The path exists, the method does not. ``details`` has ``allow``."""

    code = "method_not_allowed"
    status = 405


class ClientGone(LiveError):
    """The client has closed its connection; nobody is left to answer."""

    code = "client_gone"
    status = 499


def redacted(text: str) -> str:
    """Return ``text`` without anything that looks like a key."""
    return _SECRET.sub("[redacted]", redact(text))


def public_error(exc: BaseException, run_id: str | None) -> LiveError:
    """Return what may be told of ``exc``, and log what may not be told.

    A ``LiveError`` that is public is returned as it is, and its cause is logged in one line; every other exception
    is logged with its traceback under the run's id and becomes a :class:`ProgramFailed` without its text.
    """
    if isinstance(exc, Stop):
        exc = exc.error
    if isinstance(exc, LiveError) and exc.public:
        if exc.__cause__ is not None:
            # A client is told that the LM failed; whoever runs the server must see how.
            cause = exc.__cause__
            # Of a run that was stopped the cause is a cancellation without words; the error itself says why.
            told = f"{exc.code}: {type(cause).__name__}: {redacted(str(cause) or exc.message)}"
            log.warning("run %s: %s", run_id, told, extra=log_fields(told, run=run_id, code=exc.code))
        return exc
    log.error("run %s failed", run_id, exc_info=exc, extra=log_fields("the run failed", run=run_id))
    hidden = ProgramFailed(_HIDDEN)
    if isinstance(exc, LiveError):
        hidden.retry_after = exc.retry_after
    return hidden


def error_object(error: LiveError, run_id: str | None) -> dict[str, Any]:
    """Return the JSON body ``{"error": {"type", "message", "run_id", …}}`` of a public error."""
    body: dict[str, Any] = {"type": error.code, "message": redacted(error.message), "run_id": run_id}
    if isinstance(error, InputError):
        body.update({name: error.details[name] for name in ("field", "expected", "errors") if name in error.details})
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return {"error": body}


def chat_error_object(error: LiveError, run_id: str | None) -> dict[str, Any]:
    """Return the JSON body of a public error as OpenAI's clients read it: ``code`` is ours, ``type`` is theirs."""
    body: dict[str, Any] = error_object(error, run_id)["error"]
    param = error.details.get("param", error.details.get("field"))
    status = error_status(error)
    kind = _CHAT_KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    named = param.removeprefix("config.") if isinstance(param, str) else None
    return {"error": body | {"type": kind, "param": named, "code": error.code}}


_CHAT_KINDS = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def error_status(error: LiveError) -> int:
    """Return the HTTP status; what was cancelled by its own client is 499, as nginx has it."""
    return Cancelled.status if isinstance(error, ClientGone) else error.status


def error_headers(error: LiveError) -> list[tuple[bytes, bytes]]:
    """Return the headers that belong to an error: ``Retry-After`` in whole seconds, ``Allow``, …"""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.details.get("allow", ())).encode()))
    if isinstance(error, LMTruncated):
        headers.append((b"x-should-retry", b"false"))  # OpenAI's clients ask again after any 5xx, and pay for it again
    if "rate_limit" in error.details:
        headers += rate_limit_headers(*error.details["rate_limit"])
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers
