"""What an endpoint says when it fails, in whatever form it says it."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from dspy_live.sansio.openai.delta import Delta

_SHOWN = 500  # characters of an endpoint's own text that go into a message
_SECRET = re.compile(r"\b(?:(sk|pk|rk|gsk|xai|key)[-_][A-Za-z0-9_\-.]{8,}|(Bearer|Basic)\s+[A-Za-z0-9_\-.+/=]{8,})")
_REFUSED_N = re.compile(rb"""['"`]n['"`]|\bn (?:must|should|is)\b|n_choices|completion choice""")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


class ReplyError(Exception):
    """Base: the endpoint's reply is of no use. ``deltas`` are those of the same bytes before the failure."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.deltas: list[Delta] = []


class ProviderFailed(ReplyError):
    """The reply, with status 200, or its stream, carries an ``error`` object.

    ``code`` is the provider's, a string or ``None``; ``status`` an HTTP status, where it gives one;
    ``retry_after`` is in seconds, where it gives one.
    """

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after


class MalformedReply(ReplyError):
    """Not JSON, not an event stream, or not the shape of a chat completion."""


class StreamCut(ReplyError):
    """The stream ended before the reply did: no finish reason and no ``[DONE]``."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error reply, understood as far as possible.

    ``code`` is the provider's own (or its ``type``), ``retry_after`` is in seconds.
    """

    status: int
    message: str
    code: str | None = None
    retry_after: float | None = None
    request_id: str | None = None


def error_from_reply(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> ErrorReply:
    """Read an error reply: OpenAI's form and its relatives, plain text, or an HTML page.

    Args:
        status: the HTTP status.
        headers: with lower-case names.
        body: as much of it as was read.
        now: seconds since the epoch, for a ``Retry-After`` with a date and for reset times.

    Anything that looks like a key is masked in the message, which has at most 500 characters.
    """
    message, code, hint = "", None, None
    try:
        parsed = orjson.loads(body)
    except ValueError:
        message = plain_text(body)
    else:
        message, code, _, hint = read_error(parsed)
        message = message or plain_text(body)
    wait = retry_after(status, headers, now=now)
    return ErrorReply(
        status=status,
        message=shorten(message) or f"the endpoint answered with status {status} and no text",
        code=code,
        retry_after=hint if wait is None else wait,
        request_id=headers.get("x-request-id") or headers.get("request-id") or headers.get("apim-request-id"),
    )


def read_error(parsed: Any) -> tuple[str, str | None, int | None, float | None]:
    """Return (message, code, status, retry after) of an error value in any of the forms that servers use."""
    if isinstance(parsed, list) and parsed:  # Google wraps it in a list
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return (parsed, None, None, None) if isinstance(parsed, str) else ("", None, None, None)
    error = parsed.get("error", parsed)
    if isinstance(error, str):
        return error, _text(parsed.get("code") or parsed.get("error_code")), None, None
    if not isinstance(error, dict):
        error = parsed
    message = _text(error.get("message")) or _details(error.get("detail")) or _text(error.get("msg")) or ""
    raw = error.get("code")
    status = raw if isinstance(raw, int) and 100 <= raw <= 599 else None
    code = _text(raw) if status is None else None
    if code is None:
        code = _text(error.get("type")) or _text(error.get("status")) or (_text(raw) if raw is not None else None)
    return message, code, status, _hint(error)


def failure_of(parsed: Any) -> ProviderFailed:
    """Return the exception for an error value found inside a reply."""
    message, code, status, wait = read_error(parsed)
    return ProviderFailed(
        shorten(message) or "the endpoint reported an error without a message",
        code=code,
        status=status,
        retry_after=wait,
    )


def refuses_stream_options(status: int, body: bytes) -> bool:
    """Say whether an error reply is the refusal of ``stream_options``: ask again without it."""
    return status in (400, 422) and (b"stream_options" in body or b"include_usage" in body)


def refuses_n(status: int, body: bytes) -> bool:
    """Say whether an error reply is the refusal of more than one completion (``n``): ask again for one."""
    return status in (400, 422) and _REFUSED_N.search(body) is not None


def retry_after(status: int, headers: Mapping[str, str], *, now: float) -> float | None:
    """Return how many seconds to wait, from the headers, or ``None``.

    In this order: ``retry-after-ms``, ``x-ms-retry-after-ms``, ``retry-after`` (seconds or a date), and for
    statuses 429 and 503 ``x-ratelimit-reset-*``: the longest of those whose remaining count is 0,
    else the shortest of all.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        wait = _number(headers.get(name))
        if wait is not None:
            return wait / 1000
    text = headers.get("retry-after")
    if text is not None:
        wait = _number(text)
        return wait if wait is not None else _date(text, now)
    return _reset(headers, now) if status in (429, 503) else None


def _reset(headers: Mapping[str, str], now: float) -> float | None:
    spent: list[float] = []
    other: list[float] = []
    for name, text in headers.items():
        if name.startswith("x-ratelimit-reset"):
            wait = _duration(text, now)
            if wait is not None:
                left = headers.get(name.replace("reset", "remaining"), "")
                (spent if left.strip() == "0" else other).append(wait)
    return max(spent) if spent else min(other, default=None)


def _duration(text: str, now: float) -> float | None:
    """``1.5``, ``6m0s``, ``120ms``, a date, or seconds or milliseconds since the epoch."""
    number = _number(text)
    if number is not None:
        if number > 1e11:
            number /= 1000
        return max(0.0, number - now) if number > 1e9 else number
    text = text.strip()
    match = _DURATION.fullmatch(text) if text else None
    if match is None or not any(match.groups()):
        return _date(text, now)
    hours, minutes, seconds, millis = (float(g or 0) for g in match.groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None and len(text) < 40 else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _date(text: str, now: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _hint(error: Mapping[str, Any]) -> float | None:
    """Google's ``retryDelay``, and ``retry_after`` as some gateways put it into the body."""
    direct = error.get("retry_after")
    if isinstance(direct, (int, float)) and not isinstance(direct, bool):
        return _number(str(direct))
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str):
            return _duration(delay, 0.0)
    return None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _details(value: Any) -> str | None:
    """FastAPI's list of what does not fit."""
    if not isinstance(value, list):
        return _text(value)
    lines = []
    for item in value:
        if isinstance(item, dict):
            where = item.get("loc")
            place = ".".join(str(p) for p in where) if isinstance(where, list) else ""
            lines.append(f"{place}: {item.get('msg', '')}" if place else str(item.get("msg", "")))
    return "; ".join(lines) or None


def plain_text(body: bytes) -> str:
    """Return a body as one line of text; of an HTML page its title, or its words."""
    text = body[:20_000].decode("utf-8", "replace")
    if re.match(r"\s*<(?:!doctype|html|head|body|\?xml)", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        inner = title.group(1) if title else re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
        text = f"an HTML page: {html.unescape(inner)}"
    return shorten(text)


def shorten(text: str, limit: int = _SHOWN) -> str:
    """Return the text on one line, with keys masked, at most ``limit`` characters long."""
    masked = _SECRET.sub(lambda m: f"{m.group(1) or m.group(2)}-***", text[: limit * 4])
    line = " ".join(masked.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
