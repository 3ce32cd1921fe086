"""The spans of one run: its own from its beginning, modules and tools while they work, LM calls at their end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from dspy_live.core.call import Call
from dspy_live.core.observer import RunPart, RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.observe import semconv
from dspy_live.observe.lm_spans import make_lm_span
from dspy_live.observe.outcomes import of_run, outcome_and_error
from dspy_live.observe.span_content import content

MAX_DESCRIPTION = 1_000
"""Characters of a tool's description that a span holds."""
MAX_SPANS = 1_000
"""Spans inside of one run; of a longer run the first ones are made, and the others counted."""


class RunSpans:
    """A :class:`~dspy_live.core.observer.RunFollower` that makes spans.

    Args:
        tracer: makes the spans; its provider's sampler may leave the run out, and then nothing more is made.
        call: the run's call.
        parent: the context that the run is started in, or its caller's.
        conversation: the id of the conversation that it belongs to, or an empty text.
        contents: add inputs and outputs.
        started: nanoseconds of Unix time; now by default.
    """

    __slots__ = ("_attempts", "_contents", "_conversation", "_left_out", "_made", "_open", "_span", "_started",
                 "_tracer", "context", "wants_parts")  # fmt: skip

    def __init__(
        self, tracer: Tracer, call: Call, parent: Context, conversation: str, contents: bool, started: int | None = None
    ) -> None:
        self._tracer = tracer
        self._contents = contents
        self._conversation = conversation
        self._started = time.time_ns() if started is None else started
        self._open: dict[str, tuple[Span, Token[Context], str]] = {}
        self._attempts: dict[int, int] = {}
        self._made = 0
        self._left_out = 0
        attributes = {
            semconv.OPERATION: semconv.INVOKE_WORKFLOW, semconv.WORKFLOW: call.program, semconv.RUN: call.id
        }  # fmt: skip
        if call.key:
            attributes[semconv.KEY] = call.key
        if conversation:
            attributes[semconv.CONVERSATION] = conversation
        name = semconv.span_name(semconv.INVOKE_WORKFLOW, call.program)
        self._span = tracer.start_span(name, parent, SpanKind.INTERNAL, attributes, start_time=self._started)
        self.context = trace.set_span_in_context(self._span, parent)
        self.wants_parts = self._span.is_recording()
        if contents and self.wants_parts:
            self._span.set_attribute(semconv.INPUTS, content(call.inputs))

    # A RunFollower.

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make the run's span the current one."""
        token = context.attach(self.context)
        try:
            yield
        finally:
            context.detach(token)

    def part_started(self, key: str, part: RunPart) -> None:
        """Begin the span of a module or a tool, and make it the current one."""
        if not self._has_room():
            return
        parent = self._here()
        name, attributes = _described(part)
        if part.kind == "agent" and self._conversation:
            attributes[semconv.CONVERSATION] = self._conversation
        if self._contents:
            attributes[semconv.TOOL_ARGUMENTS if part.kind == "tool" else semconv.INPUTS] = content(part.inputs)
        span = self._tracer.start_span(name, parent, SpanKind.INTERNAL, attributes)
        result = semconv.TOOL_RESULT if part.kind == "tool" else semconv.OUTPUTS
        self._open[key] = (span, context.attach(trace.set_span_in_context(span, parent)), result)

    def part_ended(self, key: str, value: Any, error: BaseException | None) -> None:
        """End it; the span around it is the current one again."""
        opened = self._open.pop(key, None)
        if opened is None:
            return
        span, token, result = opened
        context.detach(token)
        if self._contents and error is None:
            span.set_attribute(result, content(value))
        _finish(span, *outcome_and_error(error))
        span.end()

    # What the observer hears.

    def lm_call(self, record: LMRecord, ended: int) -> None:
        """Make the span of an LM call, inside of the module or tool that has made it."""
        if not self.wants_parts or not self._has_room():
            return
        attempt = 1
        if record.cache != "hit" and record.lm_call:
            attempt = self._attempts[record.lm_call] = self._attempts.get(record.lm_call, 0) + 1
        make_lm_span(self._tracer, record, ended, self._here(), conversation=self._conversation, attempt=attempt)

    def end(self, record: RunRecord) -> None:
        """End the run's span, and those that are still open: what was stopped in the middle."""
        span = self._span
        if span.is_recording():
            if self._contents and record.outputs is not None:
                span.set_attribute(semconv.OUTPUTS, content(record.outputs))
            if record.ttft is not None:
                span.set_attribute(semconv.TIME_TO_FIRST_TOKEN, record.ttft)
                span.add_event(semconv.FIRST_TOKEN, timestamp=self._started + int(record.ttft * 1e9))
            if self._left_out:
                span.set_attribute(semconv.LEFT_OUT, self._left_out)
            _finish(span, *of_run(record))
        ended = self._started + int(record.duration * 1e9)
        self._end_parts(ended)
        span.end(ended)

    def stop(self) -> None:
        """End all spans now: nobody will tell of the run's end."""
        ended = time.time_ns()
        self._end_parts(ended)
        self._span.end(ended)

    def _end_parts(self, ended: int) -> None:
        while self._open:
            part = self._open.popitem()[1][0]
            _finish(part, semconv.CANCELLED, "")
            part.end(ended)

    def _here(self) -> Context:
        """The context of the calling code, where its span is one of this run's trace; else the run's own."""
        here = context.get_current()
        current = trace.get_current_span(here).get_span_context()
        return here if current.trace_id == self._span.get_span_context().trace_id else self.context

    def _has_room(self) -> bool:
        if self._made < MAX_SPANS:
            self._made += 1
            return True
        self._left_out += 1
        return False


def _described(part: RunPart) -> tuple[str, dict[str, Any]]:
    if part.kind == "tool":
        attributes = {
            semconv.OPERATION: semconv.EXECUTE_TOOL, semconv.TOOL_NAME: part.name, semconv.TOOL_TYPE: semconv.FUNCTION
        }  # fmt: skip
        if part.about:
            attributes[semconv.TOOL_DESCRIPTION] = part.about[:MAX_DESCRIPTION]
        return semconv.span_name(semconv.EXECUTE_TOOL, part.name), attributes
    attributes = {semconv.MODULE: part.name, semconv.MODULE_CLASS: part.about}
    if part.kind == "agent":
        attributes.update({semconv.OPERATION: semconv.INVOKE_AGENT, semconv.AGENT: part.name})
        return semconv.span_name(semconv.INVOKE_AGENT, part.name), attributes
    return semconv.span_name("module", part.name), attributes


def _finish(span: Span, outcome: str, error: str) -> None:
    span.set_attribute(semconv.OUTCOME, outcome)
    if error:
        span.set_attribute(semconv.ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR, error))
