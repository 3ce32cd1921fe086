"""The tools that record DSPy programs, each switched on as its own documentation says. For ``recorded.py``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol


class Recorder(Protocol):
    """A tool that is recording."""

    provider: Any
    """An OpenTelemetry tracer provider for further spans, which are taken together with the tool's."""

    def take(self) -> list[dict[str, Any]]:
        """Return the spans that have ended since the last time, in the order of their beginnings."""

    def stop(self) -> None:
        """Switch the tool off."""


def _described(spans: list[Any], key: Callable[[Any], Any], parent: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Return each span as its path of names from the root."""
    by_key = {key(span): span for span in spans}

    def path(span: Any) -> list[str]:
        above = by_key.get(parent(span))
        return [*([] if above is None else path(above)), span.name]

    return [
        {"path": path(span), "status": span.status.status_code.name, "attributes": str(dict(span.attributes))}
        for span in spans
    ]


class OpenInference:
    """``DSPyInstrumentor`` with OpenTelemetry's exporter that keeps spans in memory."""

    def __init__(self, home: str) -> None:
        from openinference.instrumentation.dspy import DSPyInstrumentor

        self._memory, self.provider = _memory()
        self._instrumentor = DSPyInstrumentor()
        self._instrumentor.instrument(tracer_provider=self.provider)

    def take(self) -> list[dict[str, Any]]:
        spans = sorted(self._memory.get_finished_spans(), key=lambda span: span.start_time)
        self._memory.clear()
        return _described(spans, lambda span: span.context.span_id, lambda span: span.parent and span.parent.span_id)

    def stop(self) -> None:
        self._instrumentor.uninstrument()


class MLflow:
    """``mlflow.dspy.autolog()``, which sends its spans to a collector."""

    def __init__(self, home: str) -> None:
        self._collector = _Collector()
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = self._collector.url
        os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
        os.environ["MLFLOW_TRACKING_URI"] = f"file://{home}/mlruns"
        import mlflow
        import mlflow.dspy

        self._mlflow = mlflow
        self._spans: list[Any] = []
        self._memory, self.provider = _memory()
        mlflow.tracing.configure(span_processors=[self._spans.append])
        mlflow.dspy.autolog()

    def take(self) -> list[dict[str, Any]]:
        spans, self._spans[:] = sorted(self._spans, key=lambda span: span.start_time_ns), []
        ours = sorted(self._memory.get_finished_spans(), key=lambda span: span.start_time)
        self._memory.clear()
        return [
            *_described(spans, lambda span: span.span_id, lambda span: span.parent_id),
            *_described(ours, lambda span: span.context.span_id, lambda span: span.parent and span.parent.span_id),
        ]

    def stop(self) -> None:
        self._mlflow.dspy.autolog(disable=True)


class _Collector:
    """Takes all that it is sent."""

    def __init__(self) -> None:
        class Taken(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return None

        server = ThreadingHTTPServer(("127.0.0.1", 0), Taken)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/v1/traces"


def _memory() -> tuple[Any, Any]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return memory, provider


TOOLS: dict[str, Callable[[str], Recorder]] = {"openinference": OpenInference, "mlflow": MLflow}
