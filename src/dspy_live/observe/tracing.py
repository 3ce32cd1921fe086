"""OpenTelemetry spans: one per run, one per LM call inside it. Off until :func:`setup_tracing` is called.

To make and send a span takes its library some 80 microseconds, a good part of a small run's CPU time. So on a busy
server a share of the runs is traced, and of the failed ones a share of their own.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, ConfigurationError
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.observe import semconv
from dspy_live.observe.redact import MAX_SECRET, redact
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.sansio.limits.bucket import Bucket

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SDKProvider

MAX_CONTENT = 20_000
"""Characters of inputs and of outputs that a span holds, where contents are chosen."""

PER_SECOND = 100.0
"""Runs a second that are traced by default. All of 1,200 a second took a quarter of a core."""
MAX_LM_CALLS = 1_000
"""LM calls of one run that get a span; of a longer run the first ones."""

logger = logging.getLogger("dspy_live.tracing")

_PROPAGATOR = TraceContextTextMapPropagator()
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
    per_second: float = PER_SECOND,
    account: Account | None = None,
) -> Tracing:
    """Send spans of runs and their LM calls to a collector, from now on; :meth:`Tracing.close` ends it.

    Args:
        endpoint: the base address of a collector that takes OTLP over HTTP, such as ``http://127.0.0.1:4318``; by
            default the one in ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        provider: a tracer provider of your own in place of all that; you shut it down. Its sampler has the last word.
        service_name: ``OTEL_SERVICE_NAME``, else ``dspy-live``, by default.
        contents: also send inputs and outputs, the first 20,000 characters of each, keys taken out.
        per_second: how many runs a second are traced at most, 100 by default; ``math.inf`` for all. As many failed
            ones come on top, and a run whose caller's trace is sampled always does: it is the caller's choice.
        account: the account whose runs are traced; the process's own by default.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` when no collector is named, for a ``per_second`` that is
    not above 0, or without the ``otel`` extra.
    """
    owned = None
    if not per_second > 0:
        raise ConfigurationError(f"per_second must be above 0, and is {per_second!r}; math.inf traces every run")
    if provider is None:
        if endpoint is None and not tracing_is_configured():
            raise ConfigurationError("tracing needs a collector: give endpoint=, or set OTEL_EXPORTER_OTLP_ENDPOINT")
        provider = owned = _provider(endpoint, service_name)
    return Tracing(provider, contents=contents, per_second=per_second, account=account, owned=owned)


@dataclass(slots=True)
class _Run:
    """A run under way, with what its spans need at its end."""

    call: Call
    started: int
    parent: Context
    lm_calls: list[tuple[LMRecord, int]] = field(default_factory=list)


class Tracing:
    """A :class:`~dspy_live.core.observer.RunObserver` that makes spans; :func:`setup_tracing` makes it.

    While a run goes on, its records are kept and nothing more; spans are made when it ends. So one that failed can be
    traced whole, whatever the limit, and one that is not traced costs next to nothing.
    """

    def __init__(
        self,
        provider: TracerProvider,
        *,
        contents: bool = False,
        per_second: float = PER_SECOND,
        account: Account | None = None,
        owned: SDKProvider | None = None,
    ) -> None:
        self._tracer = provider.get_tracer("dspy_live")
        self._contents = contents
        self._owned = owned
        self._per_second = per_second
        self._running: dict[str, _Run] = {}
        self._lock = threading.Lock()
        self._shares: dict[bool, Bucket] = {}
        if not math.isinf(per_second):
            now, room = time.monotonic(), max(1.0, per_second)
            self._shares = {failed: Bucket(per_second, room, now) for failed in (False, True)}
        self.left_out = 0
        self._stop: Callable[[], None] = (account or process_account()).observe(self)

    def close(self) -> None:
        """Stop observing, make the spans of the runs under way, and send all that wait."""
        self._stop()
        for run in list(self._running.values()):
            if self._running.pop(run.call.id, None) is not None:
                self._make(run, RunRecord(run.call, None, None, (time.time_ns() - run.started) / 1e9, None))
        if self._owned is not None:
            self._owned.shutdown()

    # A RunObserver.

    def run_started(self, call: Call) -> None:
        self._running[call.id] = _Run(call, time.time_ns(), context.get_current())

    def lm_call_ended(self, record: LMRecord) -> None:
        ended = time.time_ns()
        run = self._running.get(record.run)
        if run is None:
            if not record.run and self._is_chosen(context.get_current(), record.error is not None):
                self._make_lm_call(record, ended, None)
        elif len(run.lm_calls) < MAX_LM_CALLS:
            run.lm_calls.append((record, ended))

    def run_ended(self, record: RunRecord) -> None:
        run = self._running.pop(record.call.id, None)
        if run is None:
            return
        if record.call.trace:
            run.parent = _PROPAGATOR.extract({"traceparent": record.call.trace}, run.parent)
        if self._is_chosen(run.parent, record.error is not None and not isinstance(record.error, Cancelled)):
            self._make(run, record)

    def _is_chosen(self, parent: Context, failed: bool) -> bool:
        """True for a run that the caller traces, and for so many others a second."""
        if not self._shares or trace.get_current_span(parent).get_span_context().trace_flags.sampled:
            return True
        with self._lock:
            now = time.monotonic()
            if self._shares[failed].level(now) >= 1:
                self._shares[failed].take(now, 1)
                return True
            self.left_out += 1
            first = self.left_out == 1
        if first:
            logger.warning(
                "more than %g runs a second: further ones of that second are not traced (metrics, usage and the ledger "
                "have them all)", self._per_second,
            )  # fmt: skip
        return False

    def _make(self, run: _Run, record: RunRecord) -> None:
        call, error = record.call, record.error
        attributes: dict[str, Any] = {
            semconv.OPERATION: semconv.INVOKE_WORKFLOW,
            semconv.WORKFLOW: call.program,
            semconv.RUN: call.id,
        }
        if call.key:
            attributes[semconv.KEY] = call.key
        if self._contents:
            attributes[semconv.INPUTS] = _content(call.inputs)
            if record.outputs is not None:
                attributes[semconv.OUTPUTS] = _content(record.outputs)
        if record.ttft is not None:
            attributes[semconv.TIME_TO_FIRST_CHUNK] = record.ttft
        if error is not None:
            # The class only: a program's message may quote the user's question.
            attributes[semconv.ERROR_TYPE] = type(error).__name__
        span = self._tracer.start_span(
            f"{semconv.INVOKE_WORKFLOW} {call.program}", run.parent, SpanKind.INTERNAL, attributes,
            start_time=run.started,
        )  # fmt: skip
        if record.ttft is not None:
            span.add_event(semconv.FIRST_TOKEN, timestamp=run.started + int(record.ttft * 1e9))
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        inside = trace.set_span_in_context(span)
        for lm_record, ended in run.lm_calls:
            self._make_lm_call(lm_record, ended, inside)
        span.end(run.started + int(record.duration * 1e9))

    def _make_lm_call(self, record: LMRecord, ended: int, parent: Context | None) -> None:
        span = self._tracer.start_span(
            f"{semconv.CHAT} {record.model}", parent, SpanKind.CLIENT, _attributes(record),
            start_time=ended - int(record.latency * 1e9),
        )  # fmt: skip
        if record.error is not None:
            span.set_status(Status(StatusCode.ERROR, record.error))
        span.end(ended)


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


def _content(value: Any) -> str:
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        text = str(value)
    return redact(text[: MAX_CONTENT + MAX_SECRET])[:MAX_CONTENT]  # an image may be of megabytes


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
