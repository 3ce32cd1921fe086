"""The names of OpenTelemetry's conventions for generative AI that we use, in one place: they still change.

They have a repository of their own since May 2026, ``open-telemetry/semantic-conventions-genai``, and no release yet.
The names here are those of its main branch in October 2026, schema 1.42.0-dev, where all of ``gen_ai.*`` is in
development. Names that the conventions do not have begin with ``dspy_live.``.
"""

from __future__ import annotations

import functools

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
"""The version of the conventions that tracer and meter name."""

# Attributes.
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
WORKFLOW = "gen_ai.workflow.name"
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
MODALITY = "gen_ai.token.modality"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_DESCRIPTION = "gen_ai.tool.description"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

# Values.
CHAT = "chat"
INVOKE_WORKFLOW = "invoke_workflow"
INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"
FUNCTION = "function"
UNKNOWN = "unknown"

# Metrics.
INFERENCE_DURATION = "gen_ai.client.inference.duration"
INFERENCE_FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
USED_INPUT_TOKENS = "gen_ai.client.inference.usage.input_tokens"
USED_OUTPUT_TOKENS = "gen_ai.client.inference.usage.output_tokens"
USED_CACHE_READ_TOKENS = "gen_ai.client.inference.usage.cache_read.input_tokens"
USED_CACHE_WRITE_TOKENS = "gen_ai.client.inference.usage.cache_write.input_tokens"
USED_REASONING_TOKENS = "gen_ai.client.inference.usage.reasoning.output_tokens"
CALL_INPUT_TOKENS = "gen_ai.client.inference.operation.input_tokens"
CALL_OUTPUT_TOKENS = "gen_ai.client.inference.operation.output_tokens"
WORKFLOW_DURATION = "gen_ai.invoke_workflow.duration"
TOOL_DURATION = "gen_ai.execute_tool.duration"

# The bounds that the conventions advise.
CALL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
CALL_TOKENS = tuple(4**n for n in range(14))
WORKFLOW_SECONDS = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)

# Our own.
RUN = "dspy_live.run"
OUTCOME = "dspy_live.outcome"
MODULE = "dspy_live.module"
MODULE_CLASS = "dspy_live.module_class"
PREDICTOR = "dspy_live.predictor"
MODEL = "dspy_live.model"
LM_CALL = "dspy_live.lm_call"
ATTEMPT = "dspy_live.attempt"
CACHE = "dspy_live.cache"
COST = "dspy_live.cost_usd"
ESTIMATED = "dspy_live.usage.estimated"
KEY = "dspy_live.key"
INPUTS = "dspy_live.inputs"
OUTPUTS = "dspy_live.outputs"
FIRST_TOKEN = "dspy_live.first_token"
TIME_TO_FIRST_TOKEN = "dspy_live.time_to_first_token"
LEFT_OUT = "dspy_live.spans_left_out"

OK, ERROR, CANCELLED = "ok", "error", "cancelled"
"""The values of ``dspy_live.outcome``."""

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


def provider_of(model: str) -> str:
    """Return the conventions' name for the provider in ``"provider/model"``; ``"unknown"`` when none is named."""
    provider, _, rest = model.partition("/")
    return _PROVIDERS.get(provider, provider) if rest and provider else UNKNOWN


def model_of(model: str) -> str:
    """Return the model as its provider names it: ``"gpt-4o-mini"`` for ``"openai/gpt-4o-mini"``."""
    return model.partition("/")[2] or model


@functools.lru_cache(maxsize=1_000)
def span_name(operation: str, target: str) -> str:
    """Return a span's name, as ``"chat gpt-4o-mini"``; made once for each pair."""
    return f"{operation} {target}" if target else operation
