"""What can be said of ``--on ray`` without Ray: its words, its arithmetic, its ranges, how it asks for the extra."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.cli.conftest import Commands, live  # noqa: F401  (a fixture)

from dspy_live.cli.on_ray.autoscaling import ACTIVE, RunsPerReplica
from dspy_live.cli.on_ray.cluster import pass_on
from dspy_live.cli.on_ray.replicas import replicas_of
from dspy_live.cli.on_ray.row_ranges import read_range, row_ranges
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.config.read import read_config


def test_commands_name_the_extra(live: Commands) -> None:  # noqa: F811
    live.write("rows.jsonl", '{"question": "Why?"}\n')
    for words in (["serve", "qa.py:plain"], ["batch", "rows.jsonl", "--program", "qa.py:plain", "-o", "out.jsonl"]):
        ran = live.main(*words, "--sim", "--on", "ray")
        assert ran.returncode == 2
        assert "pip install 'dspy-live[ray]'" in ran.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--replicas", "2"], "give --on ray too"),
        (["--on", "ray", "--replicas", "0"], "--replicas takes a number or MIN:MAX"),
        (["--on", "ray", "--replicas", "3:2"], "--replicas takes a number or MIN:MAX"),
        (["--on", "ray", "--replicas", "2", "--runs-per-replica", "5"], "give --replicas MIN:MAX too"),
        (["--on", "ray", "--workers", "2"], "without --workers"),
    ],
)
def test_words_that_do_not_fit_are_refused(live: Commands, words: list[str], told: str) -> None:  # noqa: F811
    ran = live.main("serve", "qa.py:plain", "--sim", *words)
    assert ran.returncode == 2
    assert told in ran.stderr


def test_replicas_are_a_number_or_a_least_and_a_most() -> None:
    assert (replicas_of(None).least, replicas_of(None).most) == (1, 1)
    assert (replicas_of("4").least, replicas_of("4").fixed) == (4, True)
    assert (replicas_of("2:8", 50).most, replicas_of("2:8", 50).active) == (8, 50)


def test_replicas_follow_the_runs_and_what_waits_for_a_replica() -> None:
    wanted = RunsPerReplica(10)
    context = SimpleNamespace(aggregated_metrics={ACTIVE: {"a": 10.0, "b": 12.0}}, total_queued_requests=3.0)
    assert wanted(context) == (2.5, {})
    assert wanted(SimpleNamespace(aggregated_metrics=None, total_queued_requests=0.0)) == (0.0, {})


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_ranges_are_all_rows_in_order(tmp_path: Path, rows: int) -> None:
    """A mark at the start, blank lines, and a last line without an end."""
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + b'{"n": 0}\n\n{"n": 1}\r\n  \n{"n": 2}\n\n\n{"n": 3}\nno JSON\n{"n": 5}')
    parts = list(row_ranges(str(source), rows))
    assert [part.first for part in parts] == list(range(0, 6, rows))
    lines = [line for part in parts for line in read_range(part, {})]
    assert [json.loads(line)["n"] for line in lines if b"JSON" not in line] == [0, 1, 2, 3, 5]
    assert len(lines) == 6


def test_files_that_no_worker_can_read_are_refused(tmp_path: Path) -> None:
    for name in ("-", "rows.csv", str(tmp_path / "missing.jsonl")):
        with pytest.raises(ConfigurationError):
            list(row_ranges(name, 10))


def test_a_cluster_gets_the_variables_that_the_configuration_names(tmp_path: Path) -> None:
    """A replica reads the same file, and finds the secrets where it says; what else is set here stays here."""
    text = '[store]\nurl_env = "REDIS_HERE"\n\n[lms.small]\nmodel = "openai/x"\napi_key_env = "SMALL"\n'
    (tmp_path / "serve.toml").write_text(text)
    environ = {"REDIS_HERE": "redis://h", "SMALL": "s", "DSPY_LIVE_LM": "openai/x", "X_API_KEY": "k", "HOME": "/h"}
    file = read_config(tmp_path / "serve.toml", environ)
    assert pass_on(environ, file) == {}
    given = pass_on({**environ, "RAY_ADDRESS": "h:1"}, file)["runtime_env"]["env_vars"]
    assert given == {name: value for name, value in environ.items() if name != "HOME"}
