"""``dspy-live batch --on ray``: rows of files through workers of Ray Data, one of which dies in the middle."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.scale.cluster import HERE, PATIENCE, python

from dspy_live.simulator.server import Simulator

pytestmark = [pytest.mark.timeout(600), pytest.mark.ray]


def batch(
    environ: dict[str, str], folder: Path, source: str, *words: str, program: str = "programs.py:program"
) -> subprocess.CompletedProcess[str]:
    command = [python(), "-m", "dspy_live", "batch", source, "--program", str(HERE / program), "-o", "out.jsonl"]
    return subprocess.run(
        [*command, "--on", "ray", "--quiet", *words],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dead_worker_leaves_each_row_once(environ: dict[str, str], tmp_path: Path, lm: Simulator) -> None:
    """Its rows are asked again by the worker in its place; a rerun asks only for what the checkpoint has not."""
    rows = [{"question": f"How {n}?", "extra": n} for n in range(60)]
    rows[31]["question"] = f"die {tmp_path}/died"
    text = [json.dumps(row) for row in rows]
    text[7] = "no JSON"
    (tmp_path / "rows.jsonl").write_text("\n".join(text) + "\n\n")
    words = ["--workers", "2", "--concurrency", "4", "--checkpoint", "kept.jsonl"]
    first = batch(environ, tmp_path, "rows.jsonl", *words)
    assert first.returncode == 1, first.stderr
    assert "dspy-live: 60 rows, 1 failed\n  1 InvalidInput, first in row 7" in first.stderr
    assert (tmp_path / "died").exists()
    made = lines(tmp_path / "out.jsonl")
    assert [line["index"] for line in made] == list(range(60))
    assert [line["input"] for line in made] == [*rows[:7], "no JSON", *rows[8:]]
    assert all(line["output"]["answer"] for line in made if line["index"] != 7)

    kept = (tmp_path / "kept.jsonl").read_text().splitlines(keepends=True)
    assert len(kept) == 60  # its head, and each row but the one that is none
    (tmp_path / "kept.jsonl").write_text("".join(kept[:41]))
    asked = lm.stats.requests
    again = batch(environ, tmp_path, "rows.jsonl", *words)
    assert "dspy-live: 60 rows, 1 failed\n" in again.stderr
    assert lm.stats.requests - asked == 19
    assert [line["index"] for line in lines(tmp_path / "out.jsonl")] == list(range(60))


def test_parquet_goes_in(environ: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import pyarrow, pyarrow.parquet as parquet\n"
        "table = pyarrow.table({'question': [f'How {n}?' for n in range(25)]})\n"
        "parquet.write_table(table, 'rows.parquet', row_group_size=10)\n"
    )
    subprocess.run([python(), "-c", code], cwd=tmp_path, check=True, timeout=PATIENCE)
    ran = batch(environ, tmp_path, "rows.parquet", "--concurrency", "2")
    assert ran.returncode == 0, ran.stderr
    assert "dspy-live: 25 rows, 0 failed" in ran.stderr
    assert [line["input"] for line in lines(tmp_path / "out.jsonl")] == [{"question": f"How {n}?"} for n in range(25)]


def test_what_would_fail_every_row_is_told_in_a_line(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question\nWhy?\n")
    ran = batch(environ, tmp_path, "rows.csv")
    assert ran.returncode == 2
    assert "--on ray reads JSON Lines and .parquet files" in ran.stderr
