"""Every ``gen_ai.*`` name that we use is one of the conventions', and every provider has the name that they give it."""

from __future__ import annotations

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from dspy_live.observe import semconv

# Of open-telemetry/semantic-conventions-genai, its main branch in October 2026; OpenTelemetry's core package for Python
# has the names as they were when the conventions left it.
NEW_ATTRIBUTES = {"gen_ai.usage.cache_write.input_tokens", "gen_ai.token.modality"}
NEW_METRICS = {
    "gen_ai.client.inference.duration",
    "gen_ai.client.inference.time_to_first_chunk",
    "gen_ai.client.inference.usage.input_tokens",
    "gen_ai.client.inference.usage.output_tokens",
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    "gen_ai.client.inference.operation.input_tokens",
    "gen_ai.client.inference.operation.output_tokens",
    "gen_ai.invoke_workflow.duration",
    "gen_ai.execute_tool.duration",
}
RENAMED = {"gen_ai.usage.cache_creation.input_tokens", "gen_ai.client.token.usage", "gen_ai.client.operation.duration"}


def names_of(module: object) -> set[str]:
    return {value for value in vars(module).values() if isinstance(value, str) and value.startswith("gen_ai.")}


def test_our_names_are_those_of_the_conventions() -> None:
    theirs = names_of(gen_ai_attributes) | NEW_ATTRIBUTES | NEW_METRICS
    assert names_of(semconv) <= theirs
    assert names_of(semconv) >= NEW_ATTRIBUTES | NEW_METRICS


def test_no_name_is_one_that_was_renamed() -> None:
    assert names_of(gen_ai_attributes) | names_of(gen_ai_metrics) >= RENAMED
    assert not names_of(semconv) & RENAMED


def test_operations_are_those_of_the_conventions() -> None:
    operations = {member.value for member in gen_ai_attributes.GenAiOperationNameValues}
    ours = {semconv.CHAT, semconv.INVOKE_WORKFLOW, semconv.INVOKE_AGENT, semconv.EXECUTE_TOOL}
    assert ours <= operations


def test_providers_are_those_of_the_conventions() -> None:
    providers = {member.value for member in gen_ai_attributes.GenAiProviderNameValues}
    assert set(semconv._PROVIDERS.values()) <= providers | {"moonshot_ai"}


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("azure/x", "azure.ai.openai", "x"),
        ("bedrock/anthropic/x", "aws.bedrock", "anthropic/x"),
        ("groq/x", "groq", "x"),
        ("x", "unknown", "x"),
        ("", "unknown", ""),
        ("openai/", "unknown", "openai/"),
        ("/x", "unknown", "x"),
    ],
)
def test_a_model_is_named_as_its_provider_names_it(model: str, provider: str, name: str) -> None:
    assert semconv.provider_of(model) == provider
    assert semconv.model_of(model) == name


def test_a_spans_name_is_made_once() -> None:
    first = semconv.span_name("chat", "a model of this test")
    assert first == "chat a model of this test"
    assert semconv.span_name("chat", "a model of this test") is first
    assert semconv.span_name("chat", "") == "chat"


def test_the_schema_is_that_of_their_own_repository() -> None:
    assert semconv.SCHEMA_URL == "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
