"""The spans of a test as a tree, and programs that make spans of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import dspy_live
from dspy_live import Runtime
from dspy_live.observe.tracing import Tracing, setup_tracing
from dspy_live.runtime.books.account import Account

CHAT = "chat gpt-4o-mini"


@dataclass
class Traced:
    """An account whose runs are traced, a runtime that books in it, and the spans that have ended."""

    provider: TracerProvider
    exporter: InMemorySpanExporter
    account: Account = field(default_factory=Account)

    def __post_init__(self) -> None:
        self.runtime = Runtime(account=self.account)
        self.user = self.provider.get_tracer("the user's own")

    def start(self, **options: Any) -> Tracing:
        """Trace the account's runs."""
        return setup_tracing(provider=self.provider, account=self.account, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def tree(self) -> list[Any]:
        """The spans as ``[name, [children]]``, in the order in which they began; all roots."""
        ids = {span.context.span_id for span in self.spans}
        roots = [span for span in self.spans if span.parent is None or span.parent.span_id not in ids]
        return [self._below(span) for span in roots]

    def _below(self, span: ReadableSpan) -> Any:
        children = [s for s in self.spans if s.parent is not None and s.parent.span_id == span.context.span_id]
        return [span.name, [self._below(child) for child in children]] if children else span.name


@pytest.fixture
def traced() -> Iterator[Traced]:
    """A provider of OpenTelemetry's SDK that keeps its spans."""
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield Traced(provider, exporter)
    provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def outcome(span: ReadableSpan) -> tuple[str, str | None, bool]:
    """What a span says of its end: our outcome, the error's type, and whether it counts as an error."""
    found = attributes(span)
    return found["dspy_live.outcome"], found.get("error.type"), span.status.status_code is StatusCode.ERROR


def is_client(span: ReadableSpan) -> bool:
    return span.kind is SpanKind.CLIENT


class Asks(dspy.Module):  # type: ignore[misc]
    """A chain of thought inside a span of the user's own."""

    def __init__(self, user: Any) -> None:
        super().__init__()
        self.user = user
        self.think = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> Any:
        with self.user.start_as_current_span("in forward"):
            return self.think(question=question)


class AsksNatively(Asks):
    async def aforward(self, question: str) -> Any:
        with self.user.start_as_current_span("in forward"):
            return await self.think.acall(question=question)


class AsksInThreads(Asks):
    """A function of the user's own, twice at once, in threads of DSPy's or of ours."""

    def __init__(self, user: Any, parallel: Any = dspy.Parallel, num_threads: int = 2) -> None:
        super().__init__(user)
        self.parallel = parallel
        self.num_threads = num_threads

    def ask(self, question: str) -> Any:
        with self.user.start_as_current_span("in a thread"):
            return self.think(question=question)

    def forward(self, question: str) -> Any:
        parallel = self.parallel(num_threads=self.num_threads, disable_progress_bar=True)
        return parallel([(self.ask, {"question": f"{question} {n}"}) for n in range(2)])[0]


PARALLEL = {"DSPy's": dspy.Parallel, "ours": dspy_live.Parallel}
