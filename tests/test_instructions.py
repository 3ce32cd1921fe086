"""Fixed work takes no more instructions than were kept for it: a guard of speed that no busy machine can move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(330)
MOST = 1.05
MEASURE = """
import asyncio, json, sys
sys.path.insert(0, "bench")
import instructions

async def small():
    await asyncio.sleep(0)

async def dearer():
    for _ in range(100):
        pass
    await small()

async def all_counts():
    more = {"small": await instructions.count(small), "dearer": await instructions.count(dearer)}
    return more | await instructions.measure()

found = asyncio.run(all_counts())
print(json.dumps([found, instructions.kept()]))
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
    assert kept.keys() <= found.keys()
    dearer = {name: f"{kept[name]} -> {found[name]}" for name in kept if found[name] > kept[name] * MOST}
    assert not dearer, f"more instructions than bench/instructions.json has: {dearer}"


def test_counts_see_a_cost_that_is_added(counts: tuple[dict[str, int], dict[str, int]]) -> None:
    """A loop of a hundred steps is seen: the counts are as fine as that."""
    found, kept = counts
    assert all(500 < found[name] < 1_000_000 for name in kept)
    assert 200 <= found["dearer"] - found["small"] <= 1_000
