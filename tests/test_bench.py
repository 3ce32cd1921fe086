"""The benchmark runs and its figures are of the right kind. How good they are is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent.parent / "bench" / "run.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark pins processes to cores and reads /proc")
def test_the_benchmark_runs_against_dspy_live(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ["--scenarios", "requests,burst,leave", "--systems", "live", "--runs", "1", "--seconds", "0.3"]
    done = subprocess.run(
        [sys.executable, str(RUN), *words, "--out", str(out)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    requests, burst, leave = map(json.loads, out.read_text().splitlines())
    for result in (requests, burst, leave):
        assert result["failed"] == 0, result["why"]
        assert result["done"] > 0
    assert requests["cpu_us"] > 0
    assert burst["marks"] >= burst["done"]
    assert leave["closed_p50_ms"] < 5000
    assert done.stdout.startswith("| scenario | figure |")


def test_an_unknown_scenario_is_refused() -> None:
    done = subprocess.run([sys.executable, str(RUN), "--scenarios", "nonsense"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "no scenario 'nonsense'" in done.stderr
