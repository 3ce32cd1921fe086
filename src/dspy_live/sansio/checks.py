"""Refusing numbers that can't be limits, with a message that names them."""

from __future__ import annotations

import math

from dspy_live.core.errors import ConfigurationError


def positive(name: str, value: float, unit: str = "") -> float:
    """Return ``value`` when it is a finite number above 0, else raise ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ConfigurationError(f"{name} must be a number{_of(unit)} above 0; got {value!r}")
    return value


def not_negative(name: str, value: float, unit: str = "") -> float:
    """Return ``value`` when it is a finite number, 0 or above, else raise ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"{name} must be a number{_of(unit)}, 0 or above; got {value!r}")
    return value


def whole(name: str, value: int, unit: str = "", least: int = 1) -> int:
    """Return ``value`` when it is a whole number of at least ``least``, else raise ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} must be a whole number{_of(unit)}, at least {least}; got {value!r}")
    return value


def share(name: str, value: float) -> float:
    """Return ``value`` when it lies above 0 and at most at 1, else raise ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ConfigurationError(f"{name} must be a share above 0 and at most 1; got {value!r}")
    return value


def _of(unit: str) -> str:
    return f" of {unit}" if unit else ""
