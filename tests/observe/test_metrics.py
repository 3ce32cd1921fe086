"""Metrics: what Prometheus reads is what the tracker says."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, DeadlineExceeded
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe import metrics as module
from dspy_live.observe.metrics import Metrics
from dspy_live.observe.tracker import UsageTracker
from dspy_live.runtime.books.account import Account


def read(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape gives, read by Prometheus's own parser."""
    text = metrics.render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return read(metrics).get((name, tuple(sorted(labels.items()))))


def a_run(metrics: Metrics, error: BaseException | None = None, program: str = "Rag", ttft: float | None = 0.2) -> None:
    call = Call({}, program=program)
    metrics.run_started(call)
    metrics.run_ended(RunRecord(call, {} if error is None else None, error, 0.7, ttft))


def test_runs_are_counted_by_outcome_with_durations() -> None:
    metrics = Metrics(Account())
    a_run(metrics)
    a_run(metrics, DeadlineExceeded("late"))
    a_run(metrics, Cancelled("left"), ttft=None)
    running = Call({}, program="Rag")
    metrics.run_started(running)
    assert value(metrics, "dspy_live_requests_total", program="Rag", outcome="ok") == 1
    assert value(metrics, "dspy_live_requests_total", program="Rag", outcome="error") == 1
    assert value(metrics, "dspy_live_requests_total", program="Rag", outcome="cancelled") == 1
    assert value(metrics, "dspy_live_errors_total", program="Rag", error="DeadlineExceeded") == 1
    assert value(metrics, "dspy_live_requests_active", program="Rag") == 1
    assert value(metrics, "dspy_live_request_duration_seconds_count", program="Rag") == 3
    assert value(metrics, "dspy_live_request_duration_seconds_sum", program="Rag") == pytest.approx(2.1)
    assert value(metrics, "dspy_live_request_duration_seconds_bucket", program="Rag", le="0.5") == 0
    assert value(metrics, "dspy_live_request_duration_seconds_bucket", program="Rag", le="1.0") == 3
    assert value(metrics, "dspy_live_time_to_first_token_seconds_count", program="Rag") == 2
    metrics.run_ended(RunRecord(running, {}, None, 1.0, None))
    assert value(metrics, "dspy_live_requests_active", program="Rag") == 0


def test_tokens_cost_and_cache_are_the_trackers_numbers() -> None:
    account = Account()
    metrics = Metrics(account)
    at = {"program": "Rag", "model": "openai/x"}
    account.record(LMRecord(**at, usage=LMUsage(10, 5, 15, 4, 0, 2), cost=0.25, cache="miss", latency=0.3))
    account.record(LMRecord(**at, cache="hit"))
    account.record(LMRecord(**at, usage=LMUsage(1, 1, 2, estimated=True), error="LMTimeoutError"))
    stats = UsageTracker(account).get_stats()
    figures = read(metrics)

    def figure(name: str, **labels: str) -> float:
        return figures[name, tuple(sorted({**at, **labels}.items()))]

    assert figure("dspy_live_tokens_total", kind="prompt") == stats["prompt_tokens"] == 11
    assert figure("dspy_live_tokens_total", kind="completion") == stats["completion_tokens"]
    assert figure("dspy_live_tokens_total", kind="cached") == stats["cached_tokens"] == 4
    assert figure("dspy_live_tokens_total", kind="estimated") == stats["estimated_tokens"] == 2
    assert figure("dspy_live_cost_dollars_total") == stats["total_cost"] == 0.25
    assert figure("dspy_live_unpriced_calls_total") == stats["unpriced_calls"] == 1
    assert figure("dspy_live_lm_calls_total", outcome="ok") == 1
    assert figure("dspy_live_lm_calls_total", outcome="error") == stats["errors"] == 1
    assert figure("dspy_live_cache_lookups_total", result="hit") == stats["cache_hits"] == 1
    assert figure("dspy_live_cache_lookups_total", result="miss") == stats["cache_misses"] == 1
    assert value(metrics, "dspy_live_lm_call_duration_seconds_count", model="openai/x") == 2


def test_lm_calls_that_were_cancelled_are_no_errors_of_the_lm() -> None:
    account = Account()
    metrics = Metrics(account)
    at = {"program": "Rag", "model": "openai/x"}
    for error in (None, "CancelledError", "CancelledError", "LMServerError"):
        account.record(LMRecord(**at, error=error))
    assert value(metrics, "dspy_live_lm_calls_total", outcome="ok", **at) == 1
    assert value(metrics, "dspy_live_lm_calls_total", outcome="error", **at) == 1
    assert value(metrics, "dspy_live_lm_calls_total", outcome="cancelled", **at) == 2
    assert UsageTracker(account).get_stats()["errors"] == 3


def test_lm_calls_before_the_metrics_were_made_are_in_the_sums() -> None:
    account = Account()
    account.record(LMRecord(model="openai/x", error="CancelledError"))
    metrics = Metrics(account)
    assert value(metrics, "dspy_live_lm_calls_total", outcome="error", program="", model="openai/x") == 1


def test_tools_are_counted_by_outcome_with_durations() -> None:
    metrics = Metrics(Account())
    for error in (None, None, KeyError("x"), Cancelled("left")):
        metrics.tool_ended("look_up", 0.3, error)
    assert value(metrics, "dspy_live_tool_calls_total", tool="look_up", outcome="ok") == 2
    assert value(metrics, "dspy_live_tool_calls_total", tool="look_up", outcome="error") == 1
    assert value(metrics, "dspy_live_tool_calls_total", tool="look_up", outcome="cancelled") == 1
    assert value(metrics, "dspy_live_tool_duration_seconds_count", tool="look_up") == 4
    assert value(metrics, "dspy_live_tool_duration_seconds_bucket", tool="look_up", le="0.25") == 0


def test_a_run_that_was_left_without_a_reason_is_cancelled() -> None:
    metrics = Metrics(Account())
    call = Call({}, program="Rag")
    metrics.run_started(call)
    metrics.run_ended(RunRecord(call, None, None, 0.7, None))
    assert value(metrics, "dspy_live_requests_total", program="Rag", outcome="cancelled") == 1


def test_of_many_programs_a_run_that_went_well_is_never_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many series as there may be, an answer of a further program was counted as a failure."""
    monkeypatch.setattr(module, "MAX_SERIES", 5)
    metrics = Metrics(Account())
    for n in range(5):
        a_run(metrics, ValueError(n), program=f"p{n % 4}")
    a_run(metrics, program="p4")
    a_run(metrics, program="further")
    a_run(metrics, Cancelled("left"), program="p0")
    text = read(metrics)
    outcomes = {labels: count for (name, labels), count in text.items() if name == "dspy_live_requests_total"}
    assert sum(count for labels, count in outcomes.items() if ("outcome", "error") in labels) == 5
    assert sum(count for labels, count in outcomes.items() if ("outcome", "ok") in labels) == 2


@dataclass
class Inner:
    waiting: int
    name: str


@dataclass
class Figures:
    limit: int
    slots: Inner
    left: float | None


class Limit:
    def statistics(self) -> Figures:
        return Figures(8, Inner(3, "x"), None)


def test_limits_and_queues_are_asked_at_each_scrape() -> None:
    metrics = Metrics(Account())
    metrics.watch("lm", Limit())
    depth = [1]
    metrics.watch("own", lambda: {"depth": depth[0]})
    metrics.watch("broken", lambda: 1 / 0)
    assert value(metrics, "dspy_live_layer", layer="lm", figure="limit") == 8
    assert value(metrics, "dspy_live_layer", layer="lm", figure="slots_waiting") == 3
    assert value(metrics, "dspy_live_layer", layer="own", figure="depth") == 1
    depth[0] = 5
    assert value(metrics, "dspy_live_layer", layer="own", figure="depth") == 5
    assert not [labels for (_, labels) in read(metrics) if ("layer", "broken") in labels]


def test_names_without_end_share_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 5)
    account = Account()
    metrics = Metrics(account)
    for n in range(50):
        a_run(metrics, program=f"p{n}")
        account.record(LMRecord(model=f"m{n}", program=f"p{n}"))
    assert value(metrics, "dspy_live_request_duration_seconds_count", program="(other)") == 45
    assert value(metrics, "dspy_live_lm_calls_total", program="(other)", model="(other)", outcome="ok") == 45
    assert len(read(metrics)) < 500


def test_names_of_any_kind_do_not_break_the_format() -> None:
    metrics = Metrics(Account())
    a_run(metrics, program='we"ird\n\\name')
    assert value(metrics, "dspy_live_requests_total", program='we"ird\n\\name', outcome="ok") == 1


def test_a_run_that_began_before_is_not_counted_and_closing_ends_it() -> None:
    account, registry = Account(), CollectorRegistry()
    metrics = Metrics(account, registry)
    metrics.run_ended(RunRecord(Call({}), {}, None, 1.0, None))
    assert value(metrics, "dspy_live_request_duration_seconds_count", program="") is None
    metrics.close()
    assert account.observers == ()
    Metrics(account, registry).close()


def test_concurrent_threads_lose_no_run() -> None:
    account = Account()
    metrics = Metrics(account)

    def work() -> None:
        for _ in range(500):
            a_run(metrics)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    metrics.render()
    for thread in threads:
        thread.join()
    assert value(metrics, "dspy_live_requests_total", program="Rag", outcome="ok") == 2000
    assert value(metrics, "dspy_live_requests_active", program="Rag") == 0


def test_nothing_of_the_process_itself_is_shown() -> None:
    names: Any = {name for name, _ in read(Metrics(Account()))}
    assert not [name for name in names if not name.startswith("dspy_live_")]
