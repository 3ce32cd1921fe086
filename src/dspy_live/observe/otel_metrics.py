"""Metrics under the names of OpenTelemetry's conventions for generative AI, beside those of Prometheus.

Off until :func:`setup_otel_metrics` is called. Tokens are summed here and read when metrics are sent: a number that is
handed to OpenTelemetry's library takes it some ten microseconds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import NOTHING, LMRecord, LMUsage
from dspy_live.observe import semconv
from dspy_live.observe.collector import Sender, metric_sender
from dspy_live.observe.lm_spans import outcome_of, server_attributes
from dspy_live.observe.outcomes import of_run, outcome_and_error
from dspy_live.runtime.books.account import Account, process_account

_COUNTED = {
    semconv.USED_INPUT_TOKENS: ("prompt_tokens", "Input tokens, those from the provider's cache too."),
    semconv.USED_OUTPUT_TOKENS: ("completion_tokens", "Output tokens, those of reasoning too."),
    semconv.USED_CACHE_READ_TOKENS: ("cached_tokens", "Input tokens that the provider had in its cache."),
    semconv.USED_CACHE_WRITE_TOKENS: ("cache_write_tokens", "Input tokens that the provider put into its cache."),
    semconv.USED_REASONING_TOKENS: ("reasoning_tokens", "Output tokens of reasoning."),
}

_FIELDS = tuple(field for field, _ in _COUNTED.values())
MAX_SERIES = 1_000
"""Pairs of models, of request and of reply, that are told apart; of further ones the reply's model is left out."""


def otel_metrics_are_configured() -> bool:
    """True when the environment asks for metrics to be sent, and does not switch OpenTelemetry off.

    Asked for are they by ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``, or by ``OTEL_METRICS_EXPORTER=otlp`` beside
    ``OTEL_EXPORTER_OTLP_ENDPOINT``: many collectors of traces take no metrics.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_METRICS_EXPORTER", "").lower()
    if os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        return exporter in ("", "otlp")
    return exporter == "otlp" and bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def setup_otel_metrics(
    endpoint: str | None = None,
    *,
    provider: MeterProvider | None = None,
    service_name: str | None = None,
    account: Account | None = None,
) -> OtelMetrics:
    """Send the conventions' metrics to a collector once a minute, from now on; :meth:`OtelMetrics.close` ends it.

    Args:
        endpoint: the base address of a collector that takes OTLP over HTTP, such as ``http://127.0.0.1:4318``; by
            default the one in the environment, see :func:`otel_metrics_are_configured`.
        provider: a meter provider of your own in place of all that; you shut it down.
        service_name: ``OTEL_SERVICE_NAME``, else ``dspy-live``, by default.
        account: the account whose runs are measured; the process's own by default.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` when no collector is named, or without the ``otel`` extra.
    """
    owned: Sender | None = None
    if provider is None:
        if endpoint is None and not otel_metrics_are_configured():
            raise ConfigurationError(
                "metrics need a collector: give endpoint=, or set OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
            )
        owned = metric_sender(endpoint, service_name)
        provider = owned.provider
    return OtelMetrics(provider, account=account, owned=owned)


class OtelMetrics:
    """An observer of runs, LM calls and tools that measures them; :func:`setup_otel_metrics` makes it."""

    def __init__(self, provider: MeterProvider, *, account: Account | None = None, owned: Sender | None = None) -> None:
        meter = provider.get_meter("dspy_live", schema_url=semconv.SCHEMA_URL)

        def histogram(name: str, unit: str, text: str, bounds: Sequence[float]) -> Histogram:
            return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=bounds)

        seconds, tokens = semconv.CALL_SECONDS, semconv.CALL_TOKENS
        self._duration = histogram(semconv.INFERENCE_DURATION, "s", "How long LM calls took.", seconds)
        self._first = histogram(semconv.INFERENCE_FIRST_CHUNK, "s", "To the first piece of a streamed reply.", seconds)
        self._workflow = histogram(semconv.WORKFLOW_DURATION, "s", "How long runs took.", semconv.WORKFLOW_SECONDS)
        self._tool = histogram(semconv.TOOL_DURATION, "s", "How long tools took.", seconds)
        self._input = histogram(semconv.CALL_INPUT_TOKENS, "{token}", "Input tokens of one LM call.", tokens)
        self._output = histogram(semconv.CALL_OUTPUT_TOKENS, "{token}", "Output tokens of one LM call.", tokens)
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str, str], list[int]] = {}
        self._about: dict[tuple[str, str, str], dict[str, Any]] = {}
        for place, (name, (_, text)) in enumerate(_COUNTED.items()):
            meter.create_observable_counter(name, [self._reader(place)], "{token}", text)
        self._owned = owned
        self._stop: Callable[[], None] = (account or process_account()).observe(self)

    def close(self) -> None:
        """Stop observing, and send what has been measured, for five seconds at most."""
        self._stop()
        if self._owned is not None:
            self._owned.shutdown()

    # A RunObserver and a ToolObserver.

    def run_started(self, call: Call) -> None: ...

    def lm_call_ended(self, record: LMRecord) -> None:
        if record.cache == "hit":
            return  # no LM was asked
        # The conventions count what providers report, and nothing that is guessed.
        usage = NOTHING if record.usage.estimated else record.usage
        about = self._counted(record, usage)
        if record.ttft is not None and record.streamed:
            self._first.record(record.ttft, about)
        outcome = outcome_of(record)
        if outcome == semconv.ERROR and record.error is not None:
            about = {**about, semconv.ERROR_TYPE: record.error}
        self._input.record(usage.prompt_tokens, about)
        self._output.record(usage.completion_tokens, about)
        self._duration.record(record.latency, {**about, semconv.OUTCOME: outcome})

    def _counted(self, record: LMRecord, usage: LMUsage) -> dict[str, Any]:
        """Add a call's tokens to the sums, and return the attributes of its numbers."""
        key = (record.model, record.server, record.response_model)
        with self._lock:
            about = self._about.get(key)
            if about is None:
                if len(self._about) >= MAX_SERIES:
                    key = (record.model, record.server, "")
                about = self._about.setdefault(key, _about(record, key[2]))
            sums = self._sums.setdefault(key, [0] * len(_FIELDS))
            for place, field in enumerate(_FIELDS):
                sums[place] += getattr(usage, field)
        return about

    def _reader(self, place: int) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            with self._lock:
                found = [(sums[place], self._about[key]) for key, sums in self._sums.items()]
            return [Observation(value, {**about, semconv.MODALITY: semconv.UNKNOWN}) for value, about in found]

        return read

    def run_ended(self, record: RunRecord) -> None:
        self._workflow.record(record.duration, {semconv.WORKFLOW: record.call.program, **_ended(*of_run(record))})

    def tool_ended(self, name: str, seconds: float, error: BaseException | None) -> None:
        about = {semconv.OPERATION: semconv.EXECUTE_TOOL, semconv.TOOL_NAME: name, semconv.TOOL_TYPE: semconv.FUNCTION}
        self._tool.record(seconds, {**about, **_ended(*outcome_and_error(error))})


def _about(record: LMRecord, response_model: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        semconv.OPERATION: semconv.CHAT,
        semconv.PROVIDER: semconv.provider_of(record.model),
        semconv.REQUEST_MODEL: semconv.model_of(record.model),
        **server_attributes(record),
    }
    if response_model:
        about[semconv.RESPONSE_MODEL] = response_model
    return about


def _ended(outcome: str, error: str) -> dict[str, str]:
    return {semconv.OUTCOME: outcome, semconv.ERROR_TYPE: error} if error else {semconv.OUTCOME: outcome}
