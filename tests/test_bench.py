"""The benchmarks run and print numbers of the right kind. How good they are is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
RUN = BENCH / "run.py"


@pytest.mark.timeout(480)
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark pins processes to cores and reads /proc")
def test_the_benchmark_runs_against_dspy_live(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ["--scenarios", "requests,burst,leave", "--systems", "live", "--runs", "1", "--seconds", "0.3"]
    done = subprocess.run(
        [sys.executable, str(RUN), *words, "--out", str(out)], capture_output=True, text=True, timeout=470
    )
    assert done.returncode == 0, done.stderr
    requests, burst, leave = map(json.loads, out.read_text().splitlines())
    for result in (requests, burst, leave):
        assert result["failed"] == 0, result["why"]
        assert result["done"] > 0
    assert requests["cpu_us"] > 0
    assert burst["marks"] >= burst["done"]
    assert leave["closed_p50_ms"] < 5000
    assert done.stdout.startswith("| scenario | figure | dspy-live |")


@pytest.mark.timeout(480)
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark pins processes to cores and reads /proc")
def test_each_system_is_measured_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "figures.png"
    words = ["--scenarios", "requests", "--runs", "1", "--seconds", "0.3", "--plot", str(picture)]
    done = subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True, timeout=470)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [r["system"] for r in results] == ["live", "native", "tutorial", "relay"]
    for result in results:
        assert result["failed"] == 0, (result["system"], result["why"])
        assert result["done"] > 0, result["system"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--scenarios", "nonsense"], "no scenario 'nonsense'"),
        (["--systems", "nonsense"], "no system 'nonsense'; there are live, python, native, tutorial, relay"),
        (["--url", "localhost"], "--url must be like http://127.0.0.1:8000; got 'localhost'"),
    ],
)
def test_an_unknown_word_is_refused(words: list[str], told: str) -> None:
    done = subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True)
    assert done.returncode != 0
    assert told in done.stderr


def test_the_http_client_is_measured_beside_aiohttps() -> None:
    words = ["--scenarios", "requests,burst", "--rounds", "1", "--seconds", "0.05", "--json"]
    done = subprocess.run(
        [sys.executable, str(BENCH / "http_client.py"), *words], capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    for result, unit in zip(map(json.loads, done.stdout.splitlines()), ("request", "chunk"), strict=True):
        assert result["unit"] == unit
        assert min(result["ours_us"], result["aiohttp_us"], result["socket_us"]) > 0
        assert result["ratio_min"] <= result["ratio"] <= result["ratio_max"]
