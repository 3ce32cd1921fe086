"""The span of one request to an LM, made from its record when it is over, with the time at which it began."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from dspy_live.core.usage import LMRecord
from dspy_live.observe import semconv

_CANCELLED = frozenset({"CancelledError", "Cancelled", "Stop", "GeneratorExit"})


def make_lm_span(
    tracer: Tracer, record: LMRecord, ended: int, parent: Context | None, *, conversation: str = "", attempt: int = 1
) -> None:
    """Make the span of a request to an LM, or of an answer from the cache, which asks no LM.

    Args:
        tracer: makes it.
        record: what was asked and what came of it.
        ended: the end, in nanoseconds of Unix time.
        parent: the context that it is made in.
        conversation: the id of the conversation that it belongs to.
        attempt: which request of its LM call it is: above 1 for a retry or a fallback.
    """
    asked = record.cache != "hit"
    span = tracer.start_span(
        semconv.span_name(semconv.CHAT, semconv.model_of(record.model)),
        parent,
        SpanKind.CLIENT if asked else SpanKind.INTERNAL,
        _of_request(record, asked, conversation, attempt),
        start_time=ended - int(record.latency * 1e9),
    )
    if span.is_recording():
        span.set_attributes(_of_reply(record, asked))
        if outcome_of(record) == semconv.ERROR:
            span.set_status(Status(StatusCode.ERROR, record.error))
    span.end(ended)


def outcome_of(record: LMRecord) -> str:
    """Return ``"ok"``, ``"error"`` or ``"cancelled"``: a request that its run has left, or that lost its run."""
    if record.error is None:
        return semconv.OK
    return semconv.CANCELLED if record.error in _CANCELLED else semconv.ERROR


def server_attributes(record: LMRecord) -> dict[str, Any]:
    """Return ``server.address`` and ``server.port`` of the endpoint, where they are known."""
    host, _, port = record.server.rpartition(":")
    if not host or not port.isdigit():
        return {}
    return {semconv.SERVER_ADDRESS: host.strip("[]"), semconv.SERVER_PORT: int(port)}


def _of_request(record: LMRecord, asked: bool, conversation: str, attempt: int) -> dict[str, Any]:
    """What is known before the reply: a sampler may decide by it."""
    attributes: dict[str, Any] = {
        semconv.OPERATION: semconv.CHAT,
        semconv.PROVIDER: semconv.provider_of(record.model),
        semconv.REQUEST_MODEL: semconv.model_of(record.model),
        semconv.MODEL: record.model,
        semconv.CACHE: record.cache,
        semconv.LM_CALL: record.lm_call,
    }
    optional = {
        semconv.CONVERSATION: conversation,
        semconv.REQUEST_STREAM: asked and record.streamed,
        semconv.RUN: record.run,
        semconv.PREDICTOR: record.predictor,
        semconv.KEY: record.key,
        semconv.ATTEMPT: attempt if attempt > 1 else 0,
    }
    attributes.update((name, value) for name, value in optional.items() if value)
    if asked:
        attributes.update(server_attributes(record))
    return attributes


def _of_reply(record: LMRecord, asked: bool) -> dict[str, Any]:
    usage, outcome = record.usage, outcome_of(record)
    attributes: dict[str, Any] = {semconv.OUTCOME: outcome}
    if outcome == semconv.ERROR:
        attributes[semconv.ERROR_TYPE] = record.error
    if not asked:
        return attributes  # nothing was used: a provider's reply of another time was
    if usage or outcome == semconv.OK:
        attributes[semconv.INPUT_TOKENS] = usage.prompt_tokens
        attributes[semconv.OUTPUT_TOKENS] = usage.completion_tokens
    optional = {
        semconv.RESPONSE_MODEL: record.response_model,
        semconv.FINISH_REASONS: record.finish_reasons,
        semconv.CACHE_READ_TOKENS: usage.cached_tokens,
        semconv.CACHE_WRITE_TOKENS: usage.cache_write_tokens,
        semconv.REASONING_TOKENS: usage.reasoning_tokens,
        semconv.ESTIMATED: usage.estimated,
    }
    attributes.update((name, value) for name, value in optional.items() if value)
    if record.ttft is not None and record.streamed:
        attributes[semconv.TIME_TO_FIRST_CHUNK] = record.ttft
    if record.cost is not None:
        attributes[semconv.COST] = record.cost
    return attributes
