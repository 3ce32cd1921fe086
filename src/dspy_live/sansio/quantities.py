"""Sizes and durations as people write them, for every flag and option: ``10 MB``, ``2GiB``, ``90m``, ``7d``."""

from __future__ import annotations

import re

from dspy_live.core.errors import ConfigurationError

_NUMBER = r"(\d+(?:\.\d+)?)\s*"
_DURATION = re.compile(_NUMBER + r"(s|sec|m|min|h|d|w)", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SIZE = re.compile(_NUMBER + r"(?:([kmgt])(i?))?b?", re.IGNORECASE)
_POWER = {"k": 1, "m": 2, "g": 3, "t": 4}


def seconds_of(text: str) -> float:
    """Return the seconds of a duration: a number and one of ``s``, ``m``, ``h``, ``d`` and ``w``, such as ``90m``.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for anything else, a number without a unit too.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is no length of time; write 90m, 24h or 7d")
    return float(match[1]) * _SECONDS[match[2].lower()]


def bytes_of(size: str | int) -> int:
    """Return the bytes of a size: ``"500 MB"`` (powers of 1000), ``"2 GiB"`` (powers of 1024), or a number of bytes.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for anything else.
    """
    match = None if isinstance(size, bool) else _SIZE.fullmatch(str(size).strip())
    if match is None:
        raise ConfigurationError(f"{size!r} is no size; write 500MB, 2GB or a number of bytes")
    power = _POWER[match[2].lower()] if match[2] else 0
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
