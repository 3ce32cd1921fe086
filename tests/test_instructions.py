"""Fixed work takes no more instructions than were kept for it: a guard of speed that no busy machine can move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST = 1.05
MEASURE = """
import asyncio, json, sys
sys.path.insert(0, "bench")
import instructions
print(json.dumps([asyncio.run(instructions.measure()), instructions.kept()]))
"""


@pytest.fixture(scope="module")
def counts() -> tuple[dict[str, int], dict[str, int]]:
    """The counts of this tree, and the kept ones; measured in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", "COVERAGE_PROCESS_START": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found, kept = json.loads(done.stdout.splitlines()[-1])
    return found, kept


def test_no_work_takes_over_5_percent_more_instructions(counts: tuple[dict[str, int], dict[str, int]]) -> None:
    found, kept = counts
    if not kept:
        pytest.fail(f"no counts are kept for this Python; run: {sys.executable} bench/instructions.py --keep")
    dearer = {name: f"{kept[name]} -> {found[name]}" for name in found if found[name] > kept[name] * MOST}
    assert not dearer, f"more instructions than bench/instructions.json has: {dearer}"


def test_counts_see_a_cost_that_is_added(counts: tuple[dict[str, int], dict[str, int]]) -> None:
    """A loop of a few hundred steps in one call would be seen: the counts are as fine as that."""
    found, _ = counts
    assert all(500 < number < 1_000_000 for number in found.values())
