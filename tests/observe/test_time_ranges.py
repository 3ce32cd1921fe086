"""The ends of a time range as people write them."""

from __future__ import annotations

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.observe.time_ranges import unix_time

NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOW - 7 * 86_400),
        (" 90 m", NOW - 5400),
        ("1.5h", NOW - 5400),
        ("now", NOW),
        ("today", 1_789_948_800.0),
        ("Yesterday", 1_789_862_400.0),
        ("2026-09-21", 1_789_948_800.0),
        ("2026-09-21T14:13:20", NOW),
        ("2026-09-21T16:13:20+02:00", NOW),
        ("2026-09-21 14:13:20Z", NOW),
    ],
)
def test_dates_times_and_durations_before_now_are_read(text: str, expected: float) -> None:
    assert unix_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "7 moons", "-1d", "2026-13-01", "d"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no time"):
        unix_time(text, NOW)
