"""What sends spans and metrics to a collector, in threads of its own: a collector that is slow or gone delays nobody.

Spans wait in a queue of 2,048; when it is full the oldest go. A request takes five seconds at most, and so does the
end: what the collector has not taken by then is lost.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

CLOSE_SECONDS = 5.0
"""The longest time that closing takes."""
REQUEST_SECONDS = 5.0
"""The longest time of a request to the collector, where ``OTEL_EXPORTER_OTLP_TIMEOUT`` does not say another."""

logger = logging.getLogger("dspy_live.tracing")


class Sender:
    """A provider of OpenTelemetry's SDK with what sends its spans or metrics.

    It is shut down at the process's end at the latest, as the SDK's own providers are, but within seconds.
    """

    def __init__(self, provider: Any, exporter: UntilClosed) -> None:
        self.provider = provider
        self._exporter = exporter
        atexit.register(self.shutdown)

    def shutdown(self) -> None:
        """Send all that waits, for five seconds at most. Again, it does nothing."""
        atexit.unregister(self.shutdown)
        if self._exporter.close_after(CLOSE_SECONDS):
            _within(CLOSE_SECONDS, self.provider.shutdown)


class UntilClosed:
    """An exporter that sends nothing more once its time is up, so that nothing waits for a queue that goes nowhere."""

    def __init__(self, exporter: Any, failure: Any) -> None:
        self._exporter = exporter
        self._failure = failure
        self._end: float | None = None

    def close_after(self, seconds: float) -> bool:
        """Send for so many seconds yet. False where this was said before."""
        first = self._end is None
        if first:
            self._end = time.monotonic() + seconds
        return first

    def export(self, batch: Any, *arguments: Any, **named: Any) -> Any:
        """Send a batch, unless the time is up."""
        if self._end is not None and time.monotonic() >= self._end:
            return self._failure
        return self._exporter.export(batch, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exporter, name)


def span_sender(endpoint: str | None, service_name: str | None) -> Sender:
    """Return what sends spans to ``endpoint``, or where the environment says.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` without the ``otel`` extra.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    except ImportError:
        raise _missing() from None
    sent = OTLPSpanExporter(endpoint=_path(endpoint, "traces"), timeout=_timeout("TRACES"))
    exporter = UntilClosed(sent, SpanExportResult.FAILURE)
    # The SDK's own end waits for half a minute.
    provider: TracerProvider = TracerProvider(resource=_resource(service_name), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))  # type: ignore[arg-type]
    return Sender(provider, exporter)


def metric_sender(endpoint: str | None, service_name: str | None) -> Sender:
    """Return what sends metrics once a minute, as :func:`span_sender` does spans.

    ``OTEL_METRIC_EXPORT_INTERVAL`` sets another time, in milliseconds.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
    except ImportError:
        raise _missing() from None
    sent = OTLPMetricExporter(endpoint=_path(endpoint, "metrics"), timeout=_timeout("METRICS"))
    exporter = UntilClosed(sent, MetricExportResult.FAILURE)
    reader = PeriodicExportingMetricReader(exporter)  # type: ignore[arg-type]
    provider: MeterProvider = MeterProvider([reader], resource=_resource(service_name), shutdown_on_exit=False)
    return Sender(provider, exporter)


def _within(seconds: float, close: Callable[[], Any]) -> None:
    """Call ``close`` in a thread and wait for its end for so many seconds; a longer one goes on without us."""
    thread = threading.Thread(target=_quietly, args=(close,), name="dspy-live-close", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        _quietly(close)  # the interpreter is at its end and starts no thread; a request more is waited for
        return
    thread.join(seconds)
    if thread.is_alive():
        logger.warning("the collector did not take what was left within %g s; it is lost", seconds)


def _quietly(close: Callable[[], Any]) -> None:
    try:
        close()
    except Exception:
        logger.exception("closing the connection to the collector failed")


def _resource(service_name: str | None) -> Any:
    from opentelemetry.sdk.resources import Resource

    name = service_name or os.environ.get("OTEL_SERVICE_NAME") or "dspy-live"
    return Resource.create({"service.name": name})


def _path(endpoint: str | None, signal: str) -> str | None:
    return None if endpoint is None else f"{endpoint.rstrip('/')}/v1/{signal}"


def _timeout(signal: str) -> float | None:
    """Nothing, which lets the SDK read its variables, where one of them is set."""
    named = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{part}TIMEOUT") for part in ("", f"{signal}_"))
    return None if named else REQUEST_SECONDS


def _missing() -> ConfigurationError:
    return ConfigurationError("OpenTelemetry needs the extra 'otel': pip install 'dspy-live[otel]'")
