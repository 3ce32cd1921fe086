"""The script for hostile clients runs; its figures are for people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "bench" / "hostile_clients.py"


def test_readers_that_are_cut_off_at_random_bytes_miss_nothing() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "cuts", "--clients", "50"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cuts"] >= 50
    assert found["not whole"] == 0
