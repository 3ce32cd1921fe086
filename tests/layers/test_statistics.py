"""What a layer tells of itself, to people and to whoever measures it."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_live.core.events import Completion
from dspy_live.layers import (
    Adaptive,
    Breaker,
    Budget,
    Cache,
    Deadline,
    Detached,
    Fallback,
    Limit,
    Rate,
    Retry,
    SharedLimit,
    SharedRate,
    SharedSingleFlight,
    Shed,
    SingleFlight,
    Timeouts,
)
from dspy_live.testing import ScriptedService

NOWHERE = "redis://127.0.0.1:1"
SHOWN: dict[str, Any] = {
    "Adaptive(1, 20)": Adaptive(1, 20),
    "Breaker(0.5)": Breaker(0.5),
    "Budget(max_cost=5, max_calls=100)": Budget(max_cost=5.0, max_calls=100),
    "Cache(memory)": Cache(),
    "Deadline()": Deadline(),
    "Deadline(30)": Deadline(30),
    "Detached()": Detached(),
    "Detached(0.5)": Detached(0.5),
    "Fallback(1 other)": Fallback(ScriptedService([Completion({})])),
    "Limit(10, queue=100)": Limit(10),
    "Rate(requests_per_minute=60, tokens_per_minute=6000)": Rate(requests_per_minute=60, tokens_per_minute=6000),
    "Retry(3)": Retry(3),
    "SharedLimit('lm', 10, queue=100)": SharedLimit(NOWHERE, "lm", 10),
    "SharedRate(requests_per_minute=60)": SharedRate(NOWHERE, "lm", requests_per_minute=60),
    "SharedSingleFlight('lm')": SharedSingleFlight(NOWHERE, "lm"),
    "Shed(100, lag=0.5)": Shed(100, lag=0.5),
    "Shed(lag=0.5)": Shed(lag=0.5),
    "SingleFlight()": SingleFlight(),
    "Timeouts(first_token=20, idle=10)": Timeouts(first_token=20, idle=10),
    "Timeouts(idle=10)": Timeouts(idle=10),
}


@pytest.mark.parametrize("text", SHOWN)
def test_a_layer_shows_itself_as_it_was_made(text: str) -> None:
    assert repr(SHOWN[text]) == text


@pytest.mark.parametrize("layer", SHOWN.values(), ids=repr)
def test_statistics_can_be_asked_for_where_no_loop_runs(layer: Any) -> None:
    """A scrape of the metrics comes on a thread of its own; those of two layers were missing there."""
    assert type(layer.statistics()).__name__.endswith("Statistics")
