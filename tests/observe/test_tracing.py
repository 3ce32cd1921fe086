"""Spans under the conventions' names, with the numbers of the record, to a real collector, and none by default."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.observe.collectors import collector

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, ConfigurationError, DeadlineExceeded
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe import semconv
from dspy_live.observe.tracing import Tracing, setup_tracing, tracing_is_configured
from dspy_live.runtime.books.account import Account

MODEL = "openai/gpt-4o-mini"
CHAT = "chat gpt-4o-mini"


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    provider = TracerProvider()
    yield provider
    provider.shutdown()


@pytest.fixture
def spans(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def a_run(
    tracing: Tracing,
    account: Account,
    call: Call,
    failure: BaseException | None = None,
    outputs: dict[str, Any] | None = None,
    **record: Any,
) -> None:
    fields: dict[str, Any] = {
        "usage": LMUsage(10, 5, 15, 4, 1, 2), "cost": 0.25, "cache": "miss", "latency": 0.5, "ttft": 0.125,
        "streamed": True, "server": "lm.example:443", "response_model": "gpt-4o-mini-2024", "finish_reasons": ("stop",),
    }  # fmt: skip
    call = call.but(program="Rag")
    tracing.run_started(call)
    account.record(LMRecord(model=MODEL, run=call.id, predictor="rag.answer", lm_call=1, **{**fields, **record}))
    result = outputs if outputs is not None or failure is not None else {}
    tracing.run_ended(RunRecord(call, result, failure, 0.75, 0.2))


def test_a_run_and_its_lm_call_are_parent_and_child(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account)
    call = Call({"question": "secret question"}, key="team-a", session="s-1")
    a_run(tracing, account, call)
    found = by_name(spans)
    run, lm = found["invoke_workflow Rag"], found[CHAT]
    assert lm.parent is not None
    assert lm.parent.span_id == run.context.span_id
    assert (run.kind, lm.kind) == (SpanKind.INTERNAL, SpanKind.CLIENT)
    assert attributes(run) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "Rag",
        "gen_ai.conversation.id": "s-1",
        "dspy_live.time_to_first_token": 0.2,
        "dspy_live.outcome": "ok",
        "dspy_live.run": call.id,
        "dspy_live.key": "team-a",
    }
    assert attributes(lm) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.conversation.id": "s-1",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gpt-4o-mini-2024",
        "gen_ai.response.finish_reasons": ("stop",),
        "server.address": "lm.example",
        "server.port": 443,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_write.input_tokens": 1,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "gen_ai.response.time_to_first_chunk": 0.125,
        "dspy_live.run": call.id,
        "dspy_live.predictor": "rag.answer",
        "dspy_live.lm_call": 1,
        "dspy_live.model": MODEL,
        "dspy_live.outcome": "ok",
        "dspy_live.cache": "miss",
        "dspy_live.cost_usd": 0.25,
    }
    assert lm.start_time is not None
    assert lm.end_time is not None
    assert lm.end_time - lm.start_time == 500_000_000
    assert [event.name for event in run.events] == ["dspy_live.first_token"]


def test_failures_are_named_by_their_class_only(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account)
    error = DeadlineExceeded("took too long for 'secret question'")
    a_run(tracing, account, Call({}), error, error="LMTimeoutError", usage=LMUsage(), cost=None, ttft=None)
    for span, name in zip(spans.get_finished_spans(), ("LMTimeoutError", "DeadlineExceeded"), strict=True):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == name
        assert "secret" not in span.to_json()


def test_contents_only_by_choice_and_without_keys(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account, contents=True)
    call = Call({"question": "is sk-abcdef1234567890abcd a key?"})
    a_run(tracing, account, call, outputs={"answer": "yes"})
    run = attributes(by_name(spans)["invoke_workflow Rag"])
    assert run["dspy_live.inputs"] == '{"question":"is [redacted] a key?"}'
    assert run["dspy_live.outputs"] == '{"answer":"yes"}'


def test_a_run_joins_its_callers_trace(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account)
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    a_run(tracing, account, Call({}, trace=f"00-{trace_id}-{parent}-01"))
    for span in spans.get_finished_spans():
        assert f"{span.context.trace_id:032x}" == trace_id
    spans.clear()
    a_run(tracing, account, Call({}, trace="rubbish"))
    assert by_name(spans)["invoke_workflow Rag"].parent is None
    spans.clear()
    with trace.use_span(provider.get_tracer("user").start_span("users own"), end_on_exit=True) as own:
        a_run(tracing, account, Call({}))
    run = by_name(spans)["invoke_workflow Rag"]
    assert run.parent is not None
    assert run.parent.span_id == own.get_span_context().span_id


def test_a_client_over_http_hands_its_trace_on() -> None:
    from tests.server.support import http, qa, serving
    from websockets.sync.client import connect

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving(qa()) as live:
        headers = {"traceparent": parent}
        for path in ("/predict", "/predict/stream"):
            http.post(live.url + path, json={"question": "Why?"}, headers=headers)
        messages = [{"role": "user", "content": "Why?"}]
        http.post(f"{live.url}/v1/chat/completions", json={"model": "qa", "messages": messages}, headers=headers)
        http.post(f"{live.url}/v1/responses", json={"model": "qa", "input": "Why?"}, headers=headers)
        for first in ("Why?", '{"type": "start", "id": 1, "inputs": {"question": "Why?"}}'):
            with connect(f"{live.ws}/ws", additional_headers=headers) as socket:
                socket.send(first)
                socket.recv(timeout=30)
        assert [call.trace for call in live.service.calls] == [parent] * 6


def names(spans: InMemorySpanExporter) -> list[str]:
    found = [span.name for span in spans.get_finished_spans()]
    spans.clear()
    return found


RUN, LM = "invoke_workflow Rag", CHAT


def test_a_busy_server_traces_a_share_and_says_so_once(
    provider: TracerProvider, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account, per_second=0.001)
    a_run(tracing, account, Call({}))
    assert names(spans) == [LM, RUN]
    for _ in range(3):
        a_run(tracing, account, Call({}))
    assert names(spans) == []
    assert tracing.left_out == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "more than 0.001 runs a second" in caplog.text


def test_failed_runs_have_a_share_of_their_own_and_are_whole(
    provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account, per_second=0.001)
    for failure in (None, None, Cancelled("client gone"), ValueError("x"), ValueError("y")):
        a_run(tracing, account, Call({}), failure)
    kept = [attributes(span).get("error.type") for span in spans.get_finished_spans() if span.name == RUN]
    assert kept == [None, "ValueError"]
    assert names(spans) == [LM, RUN] * 2


def test_a_callers_sampled_trace_is_never_left_out(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account, per_second=0.001)
    a_run(tracing, account, Call({}))
    names(spans)
    for flags, expected in (("01", [LM, RUN]), ("00", [])):
        parent = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
        for _ in range(2):
            a_run(tracing, account, Call({}, trace=parent))
            assert names(spans) == expected


def test_all_are_traced_where_that_is_asked_for(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account, per_second=math.inf)
    for _ in range(500):
        a_run(tracing, account, Call({}))
    assert len(names(spans)) == 1000
    assert tracing.left_out == 0


@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_a_share_that_is_none_is_refused(provider: TracerProvider, wrong: float) -> None:
    with pytest.raises(ConfigurationError, match=r"per_second must be above 0.*math\.inf"):
        setup_tracing(provider=provider, account=Account(), per_second=wrong)


def test_a_long_run_has_its_first_lm_calls_only(
    provider: TracerProvider, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspy_live.observe.run_spans.MAX_SPANS", 2)
    account = Account()
    tracing = setup_tracing(provider=provider, account=account)
    call = Call({}, program="Rag")
    tracing.run_started(call)
    for n in range(3):
        account.record(LMRecord(model=MODEL, run=call.id, lm_call=n))
    tracing.run_ended(RunRecord(call, {}, None, 1.0, None))
    assert attributes(spans.get_finished_spans()[-1])["dspy_live.spans_left_out"] == 1
    assert names(spans) == [LM, LM, RUN]


def test_an_lm_call_outside_of_a_run_is_a_span_of_its_own(
    provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    account = Account()
    setup_tracing(provider=provider, account=account)
    account.record(LMRecord(model="local-model", cache="hit"))
    (span,) = spans.get_finished_spans()
    assert span.parent is None
    assert attributes(span)["dspy_live.cache"] == "hit"
    assert attributes(span)["gen_ai.provider.name"] == "unknown"  # the conventions require one


def test_closing_ends_open_spans_and_hears_no_more(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    account = Account()
    tracing = setup_tracing(provider=provider, account=account)
    call = Call({}, program="Rag")
    tracing.run_started(call)
    tracing.close()
    tracing.run_ended(RunRecord(call, {}, None, 1.0, None))
    assert [span.name for span in spans.get_finished_spans()] == ["invoke_workflow Rag"]
    assert account.observers == ()


def test_it_is_off_unless_a_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert not tracing_is_configured()
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        setup_tracing(account=Account())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert tracing_is_configured()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not tracing_is_configured()
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert not tracing_is_configured()


def test_a_real_collector_gets_the_spans() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with collector() as (url, received):
        account = Account()
        tracing = setup_tracing(f"{url}/", service_name="shop", account=account)
        a_run(tracing, account, Call({}))
        tracing.close()
    ((path, body),) = received
    request = ExportTraceServiceRequest.FromString(body)
    assert path == "/v1/traces"
    (resource,) = request.resource_spans
    service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
    assert service == "shop"
    assert {span.name for scope in resource.scope_spans for span in scope.spans} == {
        "invoke_workflow Rag",
        CHAT,
    }
    assert {scope.schema_url for scope in resource.scope_spans} == {semconv.SCHEMA_URL}
