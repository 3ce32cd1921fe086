"""OpenTelemetry spans: one per run, one per LM call inside it. Off until :func:`setup_tracing` is called."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError
from dspy_live.core.usage import LMRecord
from dspy_live.observe import semconv
from dspy_live.observe.redact import redact
from dspy_live.runtime.account import Account, process_account

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SDKProvider

TRACEPARENT = "traceparent"
"""The call's attribute with the caller's W3C ``traceparent``: the run becomes a part of that trace."""
MAX_CONTENT = 20_000
"""Characters of inputs and of outputs that a span holds, where contents are chosen."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracing_is_configured() -> bool:
    """True when the environment names a collector (``OTEL_EXPORTER_OTLP_ENDPOINT``) and does not switch it off."""
    return any(os.environ.get(name) for name in _ENDPOINTS) and (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


def setup_tracing(
    endpoint: str | None = None,
    *,
    provider: TracerProvider | None = None,
    service_name: str | None = None,
    contents: bool = False,
    account: Account | None = None,
) -> Tracing:
    """Send a span for every run and LM call to a collector, from now on; :meth:`Tracing.close` ends it.

    Args:
        endpoint: the base address of a collector that takes OTLP over HTTP, such as ``http://127.0.0.1:4318``; by
            default what ``OTEL_EXPORTER_OTLP_ENDPOINT`` says.
        provider: a tracer provider of your own in place of all that; you shut it down.
        service_name: ``OTEL_SERVICE_NAME``, else ``dspy-live``, by default.
        contents: also send inputs and outputs, the first 20,000 characters of each, keys taken out.
        account: whose runs; the process's own by default.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` when no collector is named, or without the ``otel``
    extra.
    """
    owned = None
    if provider is None:
        if endpoint is None and not tracing_is_configured():
            raise ConfigurationError("tracing needs a collector: give endpoint=, or set OTEL_EXPORTER_OTLP_ENDPOINT")
        provider = owned = _provider(endpoint, service_name)
    return Tracing(provider, contents=contents, account=account, owned=owned)


class Tracing:
    """A :class:`~dspy_live.core.observer.RunObserver` that makes spans; :func:`setup_tracing` makes it."""

    def __init__(
        self,
        provider: TracerProvider,
        *,
        contents: bool = False,
        account: Account | None = None,
        owned: SDKProvider | None = None,
    ) -> None:
        self._tracer = provider.get_tracer("dspy_live")
        self._contents = contents
        self._owned = owned
        self._spans: dict[str, Span] = {}
        self._lock = threading.Lock()
        self._stop: Callable[[], None] = (account or process_account()).observe(self)

    def close(self) -> None:
        """Hear of no more runs, end the spans that are open, and send what waits."""
        self._stop()
        with self._lock:
            spans, self._spans = list(self._spans.values()), {}
        for span in spans:
            span.end()
        if self._owned is not None:
            self._owned.shutdown()

    # A RunObserver.

    def run_started(self, call: Call, program: str) -> None:
        attributes: dict[str, Any] = {
            semconv.OPERATION: semconv.INVOKE_WORKFLOW,
            semconv.WORKFLOW: program,
            semconv.RUN: call.id,
        }
        if key := call.attributes.get("key"):
            attributes[semconv.KEY] = str(key)
        if self._contents:
            attributes[semconv.INPUTS] = _content(call.inputs)
        span = self._tracer.start_span(
            f"{semconv.INVOKE_WORKFLOW} {program}", _parent(call), SpanKind.INTERNAL, attributes
        )
        with self._lock:
            self._spans[call.id] = span

    def first_token(self, call: Call) -> None:
        span = self._spans.get(call.id)
        if span is not None:
            span.add_event(semconv.FIRST_TOKEN)

    def lm_call_ended(self, record: LMRecord) -> None:
        ended = time.time_ns()
        run = self._spans.get(record.run)
        span = self._tracer.start_span(
            f"{semconv.CHAT} {record.model}",
            trace.set_span_in_context(run) if run is not None else None,
            SpanKind.CLIENT,
            _attributes(record),
            start_time=ended - int(record.latency * 1e9),
        )
        if record.error is not None:
            span.set_status(Status(StatusCode.ERROR, record.error))
        span.end(ended)

    def run_ended(self, call: Call, error: BaseException | None, duration: float, ttft: float | None) -> None:
        with self._lock:
            span = self._spans.pop(call.id, None)
        if span is None:
            return
        if self._contents and (outputs := call.attributes.get("outputs")) is not None:
            span.set_attribute(semconv.OUTPUTS, _content(outputs))
        if ttft is not None:
            span.set_attribute(semconv.TIME_TO_FIRST_CHUNK, ttft)
        if error is not None:
            # The class only: a program's message may quote what the user asked.
            span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.end()


def _attributes(record: LMRecord) -> dict[str, Any]:
    usage = record.usage
    attributes: dict[str, Any] = {
        semconv.OPERATION: semconv.CHAT,
        semconv.REQUEST_MODEL: record.model,
        semconv.CACHE: record.cache,
        semconv.LM_CALL: record.lm_call,
        semconv.INPUT_TOKENS: usage.prompt_tokens,
        semconv.OUTPUT_TOKENS: usage.completion_tokens,
    }
    optional = {
        semconv.PROVIDER: semconv.provider_of(record.model),
        semconv.RUN: record.run,
        semconv.PREDICTOR: record.predictor,
        semconv.KEY: record.key,
        semconv.CACHE_READ_TOKENS: usage.cached_tokens,
        semconv.CACHE_WRITE_TOKENS: usage.cache_write_tokens,
        semconv.REASONING_TOKENS: usage.reasoning_tokens,
        semconv.ESTIMATED: usage.estimated,
        semconv.ERROR_TYPE: record.error,
    }
    attributes.update((name, value) for name, value in optional.items() if value)
    if record.ttft is not None:
        attributes[semconv.TIME_TO_FIRST_CHUNK] = record.ttft
    if record.cost is not None and record.cache != "hit":
        attributes[semconv.COST] = record.cost
    return attributes


def _parent(call: Call) -> Context | None:
    traceparent = call.attributes.get(TRACEPARENT)
    if not traceparent:
        return None
    return TraceContextTextMapPropagator().extract({TRACEPARENT: str(traceparent)})


def _content(value: Any) -> str:
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        text = str(value)
    return redact(text)[:MAX_CONTENT]


def _provider(endpoint: str | None, service_name: str | None) -> SDKProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationError("tracing needs the extra 'otel': pip install 'dspy-live[otel]'") from None
    name = service_name or os.environ.get("OTEL_SERVICE_NAME") or "dspy-live"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    traces = None if endpoint is None else endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=traces)))
    return provider
