"""What the workers of a server count is one server's: sums, and files that outlive a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.observe.metrics import Metrics
from dspy_live.runtime.books.account import Account
from dspy_live.server.workers.counts import Counts, bury, file_of, latest, read_dead, read_files, write
from dspy_live.server.workers.sums import (
    COUNTED,
    counters_only,
    merged_texts,
    summed_counts,
    summed_readiness,
    summed_statistics,
)

TEXT = """\
# HELP live_requests_total Runs that have ended, by outcome.
# TYPE live_requests_total counter
live_requests_total{outcome="ok",program="a } b"} 3.0
# HELP live_requests_active Runs under way.
# TYPE live_requests_active gauge
live_requests_active{program="a } b"} 1.0
# HELP live_seconds How long.
# TYPE live_seconds histogram
live_seconds_bucket{le="1.0"} 2.0
live_seconds_bucket{le="+Inf"} 3.0
live_seconds_count 3.0
live_seconds_sum 4.5
# HELP live_layer Statistics.
# TYPE live_layer gauge
live_layer{figure="limit",layer="lm"} 8.0
"""


def series(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_series_are_added_and_the_figures_of_layers_stay_each_workers_own() -> None:
    merged = merged_texts([("1", TEXT), ("2", TEXT), ("", counters_only(TEXT))])
    assert series(merged) == {
        'live_requests_total{outcome="ok",program="a } b"}': 9.0,
        'live_requests_active{program="a } b"}': 2.0,
        'live_seconds_bucket{le="1.0"}': 6.0,
        'live_seconds_bucket{le="+Inf"}': 9.0,
        "live_seconds_count": 9.0,
        "live_seconds_sum": 13.5,
        'live_layer{figure="limit",layer="lm",worker="1"}': 8.0,
        'live_layer{figure="limit",layer="lm",worker="2"}': 8.0,
    }
    assert merged.count("# TYPE") == merged.count("# HELP") == 4


def test_one_workers_text_is_a_servers_text() -> None:
    assert merged_texts([("", TEXT)]) == TEXT


def test_what_the_servers_own_metrics_say_is_added_and_can_be_read() -> None:
    texts = []
    for times in (2, 3):
        metrics = Metrics(Account())
        metrics.watch("server", lambda: {"active": 1})
        for _ in range(times):
            call = Call(program='the "first" one', inputs={})
            metrics.run_started(call)
            metrics.run_ended(RunRecord(call, {}, None, 0.2, None))
        texts.append(metrics.render().decode())
        metrics.close()
    merged = merged_texts(zip("12", texts, strict=True))
    found = {family.name: family for family in text_string_to_metric_families(merged)}
    assert [sample.value for sample in found["dspy_live_requests"].samples] == [5.0]
    counted = {s.name: s.value for s in found["dspy_live_request_duration_seconds"].samples if "le" not in s.labels}
    assert counted["dspy_live_request_duration_seconds_count"] == 5.0
    assert [sample.labels["worker"] for sample in found["dspy_live_layer"].samples] == ["1", "2"]


def statistics(started: int, succeeded: int, active: int = 0, **more: Any) -> dict[str, Any]:
    given = dict.fromkeys(COUNTED, 0) | {"started": started, "succeeded": succeeded, "active": active}
    return given | {"max_active": 10, "draining": False} | more


def test_the_statistics_of_a_server_are_the_sums_of_the_living_and_the_dead() -> None:
    live = [statistics(5, 4, 1, tokens=7, cost=0.1), statistics(2, 2, draining=True, cost=0.2)]
    found = summed_statistics(live, summed_counts([statistics(3, 3)]), [0.1, 0.3], [], 12.5)
    assert found["started"] == 10
    assert found["succeeded"] == 9
    assert found["active"] == 1
    assert found["max_active"] == 20
    assert found["draining"] is False
    assert found["cost"] == 0.3
    assert found["duration_ms"] == {"p50": 300.0, "p95": 300.0, "p99": 300.0}
    assert found["first_token_ms"] is None
    assert found["workers"] == 2
    assert summed_statistics([statistics(1, 1, max_active=None)], {}, [], [], 1.0)["max_active"] is None


def ready(status: str, heard: float | None = None) -> dict[str, Any]:
    return {"status": status, "active": 2, "max_active": 4, "lm": {"status": "x", "heard_s": heard}, "programs": ["a"]}


def test_a_server_is_ready_while_one_worker_is() -> None:
    found = summed_readiness([ready("draining"), ready("ready", 5.0), ready("full", 2.0)])
    assert (found["status"], found["workers"], found["workers_ready"]) == ("ready", 3, 1)
    assert (found["active"], found["max_active"], found["lm"]["heard_s"]) == (6, 12, 2.0)
    assert summed_readiness([ready("full"), ready("full")])["status"] == "full"


def counted(folder: Path, told: list[Counts]) -> dict[str, float]:
    """What a worker would show: in its order, so that a death in between is seen."""
    files = read_files(folder)
    dead = read_dead(folder)
    return summed_counts([dead.statistics, *(one.statistics for one in latest(told, files, dead))])


def test_a_dead_workers_counts_stay_and_the_runs_that_it_had_have_failed(tmp_path: Path) -> None:
    write(tmp_path, Counts(worker=1, statistics=statistics(5, 3, active=2), metrics=TEXT))
    write(tmp_path, Counts(worker=2, statistics=statistics(1, 1)))
    bury(tmp_path, 1)
    assert not file_of(tmp_path, 1).exists()
    found = counted(tmp_path, [])
    assert (found["started"], found["succeeded"], found["failed"]) == (6, 4, 2)
    assert "live_requests_active" not in read_dead(tmp_path).metrics
    failed = series(read_dead(tmp_path).metrics)['live_requests_total{outcome="error",program="a } b"}']
    assert failed == 1.0, "the run that was under way"
    assert series(read_dead(tmp_path).metrics)["live_seconds_count"] == 3.0
    bury(tmp_path, 3)  # it had told nothing
    assert counted(tmp_path, []) == found


def test_a_worker_that_is_buried_while_another_one_reads_is_counted_once(tmp_path: Path) -> None:
    told = Counts(worker=1, statistics=statistics(5, 5))
    write(tmp_path, told)
    files = read_files(tmp_path)
    bury(tmp_path, 1)
    dead = read_dead(tmp_path)
    assert latest([told], files, dead) == []
    assert dead.statistics["started"] == 5


STEPS = st.lists(st.tuples(st.sampled_from(["run", "tell", "write", "die"]), st.integers(1, 3)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_no_counter_goes_backwards_whoever_dies(tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    """A worker that was killed took its counts along, and rates showed a negative number of runs."""
    folder = tmp_path_factory.mktemp("workers")
    begun = dict.fromkeys((1, 2, 3), 0)
    number = {slot: slot for slot in begun}
    shown = 0.0
    for step, slot in steps:
        counts = Counts(worker=number[slot], statistics=statistics(begun[slot], begun[slot]))
        if step == "run":
            begun[slot] += 1
        elif step == "write":
            write(folder, counts)
        elif step == "tell":
            write(folder, counts)
            now = counted(folder, [counts])["started"]
            assert now >= shown
            shown = now
        else:
            bury(folder, number[slot])
            begun[slot], number[slot] = 0, number[slot] + 3
    assert counted(folder, [])["started"] >= shown
