"""The ends of a time range as people write them: ``7d``, ``90m``, ``2026-11-20``, ``2026-11-20T08:30``, ``today``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.quantities import seconds_of


def unix_time(text: str, now: float) -> float:
    """Return the Unix time of a date, a date with a time (UTC unless it names its zone), or a duration before ``now``.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for anything else.
    """
    text = text.strip()
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"today": today.timestamp(), "yesterday": (today - timedelta(days=1)).timestamp(), "now": now}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return now - seconds_of(text)
    except ConfigurationError:
        pass
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no time; write 7d, 24h, today, 2026-11-20 or 2026-11-20T08:30") from None
    return (then if then.tzinfo is not None else then.replace(tzinfo=UTC)).timestamp()
