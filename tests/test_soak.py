"""A short soak: the whole of it, with fewer clients and less time. ``make soak`` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.timeout(300)
def test_faults_and_leaving_clients_leave_nothing_behind() -> None:
    command = [sys.executable, "bench/soak.py", "--seconds", "8", "--clients", "60"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "soak: all is well" in finished.stdout


@pytest.mark.timeout(300)
def test_callers_that_leave_programs_with_dspys_own_parallel_leave_nothing_behind() -> None:
    command = [sys.executable, "bench/soak.py", "--load", "parallel", "--seconds", "8", "--clients", "30"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "soak: all is well" in finished.stdout
