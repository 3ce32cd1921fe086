"""Days and months, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dspy_live.server.keys.key import Period


def stamp(period: Period, now: float) -> str:
    """Return the name of the day or month of a time in Unix seconds: ``2026-11-21``, ``2026-11``."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def seconds_left(period: Period, now: float) -> float:
    """Return the seconds until the next day or month begins."""
    moment = datetime.fromtimestamp(now, UTC)
    begin = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    after = begin + timedelta(days=1) if period == "day" else (begin.replace(day=28) + timedelta(days=4)).replace(day=1)
    return after.timestamp() - now
