"""Times as people write them: ``7d``, ``90m``, ``2026-11-20``, ``2026-11-20T08:30``, ``today``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from dspy_live.core.errors import ConfigurationError

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d|w)", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def seconds(text: str) -> float:
    """Return how long ``"90m"`` or ``"7d"`` is. Raises :class:`ConfigurationError` for what is no such time."""
    match = _AGO.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is no length of time; write 90m, 24h or 7d")
    return float(match[1]) * _SECONDS[match[2].lower()]


def moment(text: str, now: float) -> float:
    """Return the Unix time of a date, a date with a time (UTC unless it names its zone), or so long ago.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for what is none of these.
    """
    text = text.strip()
    if _AGO.fullmatch(text):
        return now - seconds(text)
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"today": today, "yesterday": today - timedelta(days=1), "now": datetime.fromtimestamp(now, UTC)}
    if text.lower() in named:
        return named[text.lower()].timestamp()
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no time; write 7d, 24h, today, 2026-11-20 or 2026-11-20T08:30") from None
    return (then if then.tzinfo is not None else then.replace(tzinfo=UTC)).timestamp()


def size(text: str) -> int:
    """Return the bytes of ``"500 MB"`` or ``"1048576"``. Raises :class:`ConfigurationError` for what is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is no size; write 500MB, 2GB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])
