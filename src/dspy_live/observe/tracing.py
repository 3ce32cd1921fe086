"""OpenTelemetry spans of runs, their modules, tools and LM calls. Off until :func:`setup_tracing` is called.

To make and send a span takes its library some 80 microseconds, a good part of a small run's CPU time. So on a busy
server a share of the runs is traced, and of the failed ones a share of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError
from dspy_live.core.observer import RunFollower, RunPart, RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.observe import semconv
from dspy_live.observe.collector import Sender, span_sender
from dspy_live.observe.conversation import conversation_of
from dspy_live.observe.lm_spans import make_lm_span, outcome_of
from dspy_live.observe.outcomes import of_run
from dspy_live.observe.run_spans import MAX_SPANS, RunSpans
from dspy_live.observe.sampling import Share
from dspy_live.runtime.books.account import Account, process_account

PER_SECOND = 100.0
"""Runs a second that are traced by default. All of 1,200 a second took a quarter of a core."""

_PROPAGATOR = TraceContextTextMapPropagator()
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracing_is_configured() -> bool:
    """True when the environment names a collector (``OTEL_EXPORTER_OTLP_ENDPOINT``) and does not switch it off.

    ``OTEL_SDK_DISABLED=true`` and ``OTEL_TRACES_EXPORTER=none`` do.
    """
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    off = off or os.environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none"
    return not off and any(os.environ.get(name) for name in _ENDPOINTS)


def setup_tracing(
    endpoint: str | None = None,
    *,
    provider: TracerProvider | None = None,
    service_name: str | None = None,
    contents: bool = False,
    per_second: float = PER_SECOND,
    parts: bool = True,
    account: Account | None = None,
) -> Tracing:
    """Send spans of runs to a collector, from now on; :meth:`Tracing.close` ends it.

    A run's span is there from the run's beginning, and is the current one in the program's own code.

    Args:
        endpoint: the base address of a collector that takes OTLP over HTTP, such as ``http://127.0.0.1:4318``; by
            default the one in ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        provider: a tracer provider of your own in place of all that; you shut it down. Its sampler has the last word.
        service_name: ``OTEL_SERVICE_NAME``, else ``dspy-live``, by default.
        contents: also send inputs and outputs, the first 20,000 characters of each, keys taken out.
        per_second: how many runs a second are traced at most, 100 by default; ``math.inf`` for all. As many failed
            ones come on top, and a run whose caller's trace is sampled always does: it is the caller's choice.
        parts: False makes the run's own span and no other: its modules, tools and LM calls are left to a tool that
            records them itself, such as OpenInference's instrumentation of DSPy, and its spans are inside of the run's.
        account: the account whose runs are traced; the process's own by default.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` when no collector is named, for a ``per_second`` that is
    not above 0, or without the ``otel`` extra.
    """
    owned: Sender | None = None
    if not per_second > 0:
        raise ConfigurationError(f"per_second must be above 0, and is {per_second!r}; math.inf traces every run")
    if provider is None:
        if endpoint is None and not tracing_is_configured():
            raise ConfigurationError("tracing needs a collector: give endpoint=, or set OTEL_EXPORTER_OTLP_ENDPOINT")
        owned = span_sender(endpoint, service_name)
        provider = owned.provider
    return Tracing(provider, contents=contents, per_second=per_second, parts=parts, account=account, owned=owned)


class HasShutdown(Protocol):
    """What :meth:`Tracing.close` shuts down."""

    def shutdown(self) -> object: ...


class Tracing:
    """A :class:`~dspy_live.core.observer.FollowingObserver` that makes spans; :func:`setup_tracing` makes it.

    Whether a run is traced is decided at its beginning. Of one that is not, the records of its LM calls are kept until
    its end and nothing is made: where it fails, its spans are made then, so that it can be seen whole.
    """

    def __init__(
        self,
        provider: TracerProvider,
        *,
        contents: bool = False,
        per_second: float = PER_SECOND,
        parts: bool = True,
        account: Account | None = None,
        owned: HasShutdown | None = None,
    ) -> None:
        self._tracer = provider.get_tracer("dspy_live", schema_url=semconv.SCHEMA_URL)
        self._contents = contents
        self._owned = owned
        self._share = Share(per_second)
        self._parts = parts
        self._traced: dict[str, RunSpans] = {}
        # Of the others the context that each began in (none for a part of another one), and its LM calls.
        self._untraced: dict[str, Context | None] = {}
        self._records: dict[str, list[tuple[LMRecord, int]]] = {}
        self._stop: Callable[[], None] = (account or process_account()).observe(self)

    @property
    def left_out(self) -> int:
        """How many runs have ended without a span."""
        return self._share.left_out

    def close(self) -> None:
        """Stop observing, end the spans of the runs under way, and send all that wait, for five seconds at most."""
        self._stop()
        for id_ in list(self._traced):
            if (spans := self._traced.pop(id_, None)) is not None:
                spans.stop()
        self._untraced.clear()
        self._records.clear()
        if self._owned is not None:
            self._owned.shutdown()

    # A FollowingObserver.

    def run_started(self, call: Call) -> None:
        here = context.get_current()
        if call.parent in self._untraced:
            self._untraced[call.id] = None
            return
        parent = _parent_of(call, here)
        if not self._share.take(parent):
            self._untraced[call.id] = parent
            return
        spans = self._traced[call.id] = self._spans(call, parent)
        if not spans.wants_parts:
            self._share.give_back(parent)
        spans.wants_parts = spans.wants_parts and self._parts

    def follow(self, call: Call) -> RunFollower | None:
        """Return who makes the spans of the run's modules and tools; ``None`` for a run that is not traced."""
        spans = self._traced.get(call.id)
        if spans is not None:
            return spans
        parent = self._untraced.get(call.id) if call.trace else None
        return _InCallersTrace(parent) if parent is not None else None

    def lm_call_ended(self, record: LMRecord) -> None:
        if not self._parts:
            return
        spans = self._traced.get(record.run)
        if spans is not None:
            spans.lm_call(record, time.time_ns())
        elif record.run in self._untraced:
            records = self._records.setdefault(record.run, [])
            if len(records) < MAX_SPANS:
                records.append((record, time.time_ns()))
        elif not record.run:
            self._lm_call_alone(record)

    def run_ended(self, record: RunRecord) -> None:
        id_ = record.call.id
        spans = self._traced.pop(id_, None)
        if spans is not None:
            spans.end(record)
            return
        if id_ not in self._untraced:
            return
        parent, records = self._untraced.pop(id_), self._records.pop(id_, ())
        if parent is None:
            return
        if of_run(record)[0] == semconv.ERROR and self._share.take(parent, failed=True):
            late = self._spans(record.call, parent, time.time_ns() - int(record.duration * 1e9))
            for lm_record, ended in records:
                late.lm_call(lm_record, ended)
            late.end(record)
        else:
            self._share.leave_out()

    def _lm_call_alone(self, record: LMRecord) -> None:
        here = context.get_current()
        if self._share.take(here, failed=outcome_of(record) == semconv.ERROR):
            make_lm_span(self._tracer, record, time.time_ns(), here, conversation=conversation_of(here))
        else:
            self._share.leave_out()

    def _spans(self, call: Call, parent: Context, started: int | None = None) -> RunSpans:
        conversation = call.session or conversation_of(parent)
        return RunSpans(self._tracer, call, parent, conversation, self._contents, started)


class _InCallersTrace:
    """Follows a run without spans of ours whose caller has a trace: the program's own spans are made in that."""

    wants_parts = False

    def __init__(self, parent: Context) -> None:
        self._parent = parent

    @contextmanager
    def entered(self) -> Iterator[None]:
        token = context.attach(self._parent)
        try:
            yield
        finally:
            context.detach(token)

    def part_started(self, key: str, part: RunPart) -> None: ...

    def part_ended(self, key: str, value: object, error: BaseException | None) -> None: ...


def _parent_of(call: Call, here: Context) -> Context:
    """Return the caller's trace, or where the run is started, if that is inside of the same trace already."""
    if not call.trace:
        return here
    theirs = _PROPAGATOR.extract({"traceparent": call.trace}, here)
    inside, outside = (trace.get_current_span(where).get_span_context() for where in (here, theirs))
    return here if inside.is_valid and inside.trace_id == outside.trace_id else theirs
