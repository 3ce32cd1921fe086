"""An idle stream takes no more memory than was kept for it: a guard that no busy machine can move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(330)
MOST = 1.1
MEASURE = """
import asyncio, json, sys
sys.path.insert(0, "bench")
import idle_memory

held = []

async def both():
    found = await idle_memory.measure()
    more = await idle_memory.measure(keep=lambda: held.append(bytearray(1_000)))
    return [found, more, idle_memory.kept()]

print(json.dumps(asyncio.run(both())))
"""


@pytest.fixture(scope="module")
def figures() -> tuple[int, int, int | None]:
    """Bytes of an idle stream, of one that has a kilobyte more, and the kept figure; from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", "COVERAGE_PROCESS_START": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found, more, kept = json.loads(done.stdout.splitlines()[-1])
    return found, more, kept


def test_an_idle_stream_takes_no_more_memory(figures: tuple[int, int, int | None]) -> None:
    found, _, kept = figures
    if kept is None:
        pytest.fail(f"no figure is kept for this Python; run: {sys.executable} bench/idle_memory.py --keep")
    assert found <= kept * MOST, f"an idle stream takes {found} bytes, and bench/idle_memory.json has {kept}"


def test_a_kilobyte_more_for_each_stream_is_seen(figures: tuple[int, int, int | None]) -> None:
    found, more, _ = figures
    assert 900 <= more - found <= 1_300
    assert 10_000 < found < 40_000
