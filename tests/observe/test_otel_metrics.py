"""Metrics under the conventions' names: what providers report and nothing that is guessed, to a real collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.observe.collectors import collector
from tests.observe.test_tool_spans import lm_that_calls
from tests.programs.conftest import Sim, sim
from tests.support.until import BOUND

from dspy_live import Runtime, asyncify, streamify
from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, ConfigurationError, DeadlineExceeded
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe import semconv
from dspy_live.observe.otel_metrics import OtelMetrics, otel_metrics_are_configured, setup_otel_metrics
from dspy_live.observe.tracker import UsageTracker
from dspy_live.runtime.books.account import Account

__all__ = ["sim"]  # a fixture

LM_CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024",
    "server.address": "lm.example",
    "server.port": 443,
}


class Measured:
    """An account that is measured, and what a collector would read."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.account = Account()
        self.metrics = setup_otel_metrics(provider=self.provider, account=self.account)

    def read(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        assert {scope.schema_url for scope in scopes} <= {semconv.SCHEMA_URL}
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

    def one(self, name: str) -> Any:
        (point,) = self.read()[name]
        return point


@pytest.fixture
def measured() -> Iterator[Measured]:
    made = Measured()
    yield made
    made.metrics.close()
    made.provider.shutdown()


def record(**more: Any) -> LMRecord:
    fields: dict[str, Any] = {
        "model": "openai/gpt-4o-mini", "usage": LMUsage(10, 5, 15, 4, 1, 2), "cache": "miss", "latency": 0.5,
        "ttft": 0.125, "streamed": True, "server": "lm.example:443", "response_model": "gpt-4o-mini-2024",
    }  # fmt: skip
    return LMRecord(**{**fields, **more})


def test_an_lm_call_is_measured_under_the_conventions_names(measured: Measured) -> None:
    measured.account.record(record())
    found = measured.read()
    expected = {
        semconv.USED_INPUT_TOKENS: 10, semconv.USED_OUTPUT_TOKENS: 5, semconv.USED_CACHE_READ_TOKENS: 4,
        semconv.USED_CACHE_WRITE_TOKENS: 1, semconv.USED_REASONING_TOKENS: 2,
    }  # fmt: skip
    for name, value in expected.items():
        (point,) = found[name]
        assert (point.value, dict(point.attributes)) == (value, {**LM_CALL, "gen_ai.token.modality": "unknown"})
    for name, total in ((semconv.CALL_INPUT_TOKENS, 10), (semconv.CALL_OUTPUT_TOKENS, 5)):
        (point,) = found[name]
        assert (point.sum, point.count, dict(point.attributes)) == (total, 1, LM_CALL)
        assert point.explicit_bounds == semconv.CALL_TOKENS
    (duration,), (first,) = found[semconv.INFERENCE_DURATION], found[semconv.INFERENCE_FIRST_CHUNK]
    assert (duration.sum, dict(duration.attributes)) == (0.5, {**LM_CALL, "dspy_live.outcome": "ok"})
    assert (first.sum, dict(first.attributes)) == (0.125, LM_CALL)
    assert duration.explicit_bounds == first.explicit_bounds == semconv.CALL_SECONDS


def test_estimated_tokens_are_not_reported(measured: Measured) -> None:
    measured.account.record(record(usage=LMUsage.estimate(400, 40), error="LMTimeoutError"))
    assert measured.one(semconv.USED_INPUT_TOKENS).value == 0
    tokens = measured.one(semconv.CALL_INPUT_TOKENS)
    assert (tokens.sum, tokens.attributes["error.type"]) == (0, "LMTimeoutError")
    duration = measured.one(semconv.INFERENCE_DURATION)
    assert duration.attributes["dspy_live.outcome"] == "error"


def test_an_answer_from_the_cache_and_one_in_one_piece(measured: Measured) -> None:
    measured.account.record(record(cache="hit", usage=LMUsage(), latency=0.0))
    assert not any(measured.read().values())
    measured.account.record(record(streamed=False))
    assert semconv.INFERENCE_FIRST_CHUNK not in measured.read()


def test_a_cancelled_lm_call_is_no_error(measured: Measured) -> None:
    measured.account.record(record(error="CancelledError"))
    found = dict(measured.one(semconv.INFERENCE_DURATION).attributes)
    assert found["dspy_live.outcome"] == "cancelled"
    assert "error.type" not in found


@pytest.mark.parametrize(
    ("error", "outputs", "expected"),
    [
        (None, {}, {"dspy_live.outcome": "ok"}),
        (None, None, {"dspy_live.outcome": "cancelled"}),
        (Cancelled("left"), None, {"dspy_live.outcome": "cancelled"}),
        (DeadlineExceeded("late"), None, {"dspy_live.outcome": "error", "error.type": "DeadlineExceeded"}),
    ],
)
def test_a_run_is_measured_with_its_outcome(measured: Measured, error: Any, outputs: Any, expected: Any) -> None:
    call = Call({}, program="Rag")
    measured.metrics.run_started(call)
    measured.metrics.run_ended(RunRecord(call, outputs, error, 0.75, None))
    point = measured.one(semconv.WORKFLOW_DURATION)
    assert (point.sum, dict(point.attributes)) == (0.75, {"gen_ai.workflow.name": "Rag", **expected})
    assert point.explicit_bounds == semconv.WORKFLOW_SECONDS


async def test_a_programs_numbers_are_the_trackers(measured: Measured, sim: Sim) -> None:
    runtime = Runtime(account=measured.account)
    with dspy.context(lm=sim.lm()):
        for n in range(3):
            await asyncify(dspy.ChainOfThought("question -> answer"), runtime=runtime)(question=f"Why {n}?")
        async for _ in streamify(dspy.Predict("question -> answer"), runtime=runtime)(question="Why?"):
            pass
    stats = UsageTracker(measured.account).get_stats()
    assert measured.one(semconv.USED_INPUT_TOKENS).value == stats["prompt_tokens"] > 0
    assert measured.one(semconv.USED_OUTPUT_TOKENS).value == stats["completion_tokens"]
    assert measured.one(semconv.INFERENCE_DURATION).count == stats["api_calls"] == 4
    assert measured.one(semconv.INFERENCE_FIRST_CHUNK).count == 1
    assert sum(point.count for point in measured.read()[semconv.WORKFLOW_DURATION]) == 4


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_tools_are_measured_without_any_tracing(measured: Measured, way: Any) -> None:
    def breaks(n: int) -> str:
        """Break."""
        raise KeyError(n)

    agent = dspy.ReAct("question -> answer", tools=[breaks])
    with dspy.context(lm=lm_that_calls("breaks")):
        await asyncify(agent, execution=way, runtime=Runtime(account=measured.account))(question="Why?")
    point = measured.one(semconv.TOOL_DURATION)
    assert point.count == 1
    assert dict(point.attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "breaks",
        "gen_ai.tool.type": "function",
        "dspy_live.outcome": "error",
        "error.type": "KeyError",
    }


async def test_an_observer_of_tools_that_fails_changes_no_run(measured: Measured, caplog: Any) -> None:
    class Broken:
        def run_started(self, call: Call) -> None: ...
        def lm_call_ended(self, record: LMRecord) -> None: ...
        def run_ended(self, record: RunRecord) -> None: ...

        def tool_ended(self, name: str, seconds: float, error: BaseException | None) -> None:
            raise RuntimeError("broken")

    def look_up(n: int) -> str:
        """Look a number up."""
        return "so"

    measured.account.observe(Broken())
    with dspy.context(lm=lm_that_calls("look_up")):
        agent = dspy.ReAct("question -> answer", tools=[look_up])
        assert (await asyncify(agent, runtime=Runtime(account=measured.account))(question="Why?")).answer
    assert caplog.text.count("Broken.tool_ended") == 1
    assert measured.one(semconv.TOOL_DURATION).attributes["dspy_live.outcome"] == "ok"


def test_closing_ends_it(measured: Measured) -> None:
    measured.metrics.close()
    measured.account.record(record())
    assert not any(measured.read().values())
    assert measured.account.observers == ()


def test_names_without_end_share_one_series(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspy_live.observe.otel_metrics.MAX_SERIES", 3)
    for n in range(20):
        measured.account.record(record(response_model=f"invented-{n}"))
    points = measured.read()[semconv.USED_INPUT_TOKENS]
    assert sum(point.value for point in points) == 200
    assert len(points) == 4


def test_threads_lose_no_token(measured: Measured) -> None:
    threads = [
        threading.Thread(target=lambda: [measured.account.record(record()) for _ in range(200)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    measured.read()
    for thread in threads:
        thread.join()
    assert measured.one(semconv.USED_INPUT_TOKENS).value == 8000


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_it_is_off_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, variables: Any, expected: bool) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert otel_metrics_are_configured() is expected
    if not variables:
        with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
            setup_otel_metrics(account=Account())


def test_a_real_collector_gets_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUEST_SECONDS", "CLOSE_SECONDS"):
        monkeypatch.setattr(f"dspy_live.observe.collector.{name}", BOUND)
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    with collector() as (url, received):
        account = Account()
        metrics: OtelMetrics = setup_otel_metrics(f"{url}/", account=account)
        account.record(record())
        metrics.close()
    path, body = received[-1]
    request = ExportMetricsServiceRequest.FromString(body)
    assert path == "/v1/metrics"
    names = {m.name for r in request.resource_metrics for scope in r.scope_metrics for m in scope.metrics}
    assert names >= {semconv.INFERENCE_DURATION, semconv.USED_INPUT_TOKENS, semconv.CALL_OUTPUT_TOKENS}
