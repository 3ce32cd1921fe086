"""The simulation of a server's core does what queueing says it must, and agrees with what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
KEPT = json.loads((BENCH.parent / "docs" / "images" / "scaling.json").read_text())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    import simulated_site
    import simulation

    yield simulation, simulated_site
    for name in ("simulation", "simulated_site", "scaling_plot"):
        sys.modules.pop(name, None)


def test_a_core_with_little_to_do_is_as_busy_as_its_work_adds_up_to(bench: Any) -> None:
    simulation, _ = bench
    cost = simulation.Costs(begin=0.001, wake=20e-6, chunk=10e-6)
    found = simulation.one_core(20, 50, 0.02, cost, 5.0)
    assert found.replies_per_s == pytest.approx(20, rel=0.05)  # each takes a second
    assert found.reply_cpu == pytest.approx(0.001 + 50 * 30e-6, rel=0.05)
    assert found.share == pytest.approx(20 * 0.0025, rel=0.05)
    assert found.delay_p99 < 0.005
    assert simulation.one_core(20, 50, 0.02, cost, 5.0) == found


def test_a_core_with_too_much_to_do_takes_more_chunks_each_time_and_is_late(bench: Any) -> None:
    simulation, _ = bench
    cost = simulation.Costs(begin=0.001, wake=20e-6, chunk=10e-6)
    idle, full = (simulation.one_core(clients, 50, 0.02, cost, 3.0) for clients in (100, 1500))
    assert full.share == pytest.approx(1, abs=0.01)
    assert full.reply_cpu < 0.8 * idle.reply_cpu
    assert full.delay_p50 > 100 * idle.delay_p50
    held = simulation.most_clients(50, 0.02, cost, 0.05)
    assert 400 < held < 1500
    assert simulation.one_core(held, 50, 0.02, cost, 3.0).delay_p99 <= 0.05


def test_the_simulation_agrees_with_what_was_measured(bench: Any) -> None:
    simulation, _ = bench
    cost = simulation.costs(KEPT)
    assert min(cost.begin, cost.wake, cost.chunk) > 0
    for clients in (50, 100, 200):
        points = [point for point in KEPT["mixed"] if point["clients"] == clients]
        found = simulation.one_core(clients, 50, 0.02, cost, 3.0)
        measured = sorted(point["reply_us"] for point in points)[len(points) // 2] / 1e6
        assert found.reply_cpu == pytest.approx(measured, rel=0.35)


def test_each_power_of_ten_has_a_row_with_what_it_needs(bench: Any) -> None:
    _, simulated_site = bench
    lines = simulated_site.table(KEPT, simulated_site.Assumptions()).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert [row[0] for row in rows] == ["10", "100", "1,000", "10,000", "100,000", "1,000,000"]
    costs = [float(row[-1].replace(",", "")) for row in rows]
    assert costs == sorted(costs)


def test_the_kept_measurements_are_drawn_and_told(tmp_path: Path) -> None:
    picture = tmp_path / "scaling.png"
    words = [sys.executable, str(BENCH / "scaling.py"), "--only-plot", "--plot", str(picture)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| 5,000 |" in done.stdout
    assert "| 100,000 |" in done.stdout
