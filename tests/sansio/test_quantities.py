"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.quantities import bytes_of, seconds_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("90m", 5400), (" 1.5 H ", 5400), ("7d", 604_800), ("2w", 1_209_600), ("10min", 600), ("5 sec", 5)],
)
def test_durations_are_read(text: str, expected: float) -> None:
    assert seconds_of(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "7 moons", "-1d", "d", "30", "1h30m", "infd"])
def test_a_duration_without_a_unit_or_with_another_one_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="90m"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("500MB", 500_000_000),
        ("10 MB", 10_000_000),
        ("1.5k", 1500),
        ("2 gb", 2 * 10**9),
        ("1T", 10**12),
        ("1024", 1024),
        ("7B", 7),
        ("0", 0),
        (4096, 4096),
    ],
)
def test_sizes_are_read(size: str | int, expected: int) -> None:
    assert bytes_of(size) == expected


@pytest.mark.parametrize(("size", "expected"), [("2 GiB", 2 << 30), ("1ki", 1024), ("0.5MiB", 1 << 19)])
def test_binary_units_are_powers_of_1024(size: str, expected: int) -> None:
    assert bytes_of(size) == expected


@pytest.mark.parametrize("size", ["", "big", "-5", "5 XB", "5i", True, "1 MB extra"])
def test_anything_else_is_no_size(size: str | int) -> None:
    with pytest.raises(ConfigurationError, match="no size"):
        bytes_of(size)
