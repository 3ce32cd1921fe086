"""Amounts of money, tokens and calls: those of a budget's limits, and those that it counts."""

from __future__ import annotations

import math
from typing import Any, Literal

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.usage import Expected

Unit = Literal["cost", "tokens", "calls"]
Amounts = dict[Unit, float]


def nothing() -> Amounts:
    """Return amounts of zero."""
    return {"cost": 0.0, "tokens": 0, "calls": 0}


def amounts_of(expected: Expected) -> Amounts:
    """Return the amounts that are reserved for one LM call."""
    return {"cost": expected.cost or 0.0, "tokens": expected.usage.total_tokens, "calls": 1}


def limits_of(max_cost: float | None, max_tokens: int | None, max_calls: int | None) -> Amounts:
    """Return the limits that are given; raises ConfigurationError for one that can't be, and where there is none."""
    given: dict[Unit, Any] = {"cost": max_cost, "tokens": max_tokens, "calls": max_calls}
    limits: Amounts = {}
    for unit, value in given.items():
        if value is None:
            continue
        kinds = int | float if unit == "cost" else int
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or value <= 0:
            raise ConfigurationError(
                f"max_{unit} must be {'an amount of US dollars' if unit == 'cost' else 'a whole number'} above 0; "
                f"got {value!r}"
            )
        limits[unit] = value
    if not limits:
        raise ConfigurationError("a budget needs at least one of max_cost, max_tokens and max_calls")
    return limits


def amount_text(unit: Unit, value: float) -> str:
    """Return an amount as people read it."""
    return f"${value:,.4f}" if unit == "cost" else f"{value:,.0f} {unit}"
