"""The names of OpenTelemetry's conventions for generative AI that we use, in one place: they still change.

As of the semantic conventions 1.40 (package ``opentelemetry-semantic-conventions`` 0.66b2), where ``gen_ai.*`` is in
development. Names that the conventions do not have begin with ``dspy_live.``.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
WORKFLOW = "gen_ai.workflow.name"
REQUEST_MODEL = "gen_ai.request.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
ERROR_TYPE = "error.type"

CHAT = "chat"
INVOKE_WORKFLOW = "invoke_workflow"

RUN = "dspy_live.run"
PREDICTOR = "dspy_live.predictor"
LM_CALL = "dspy_live.lm_call"
CACHE = "dspy_live.cache"
COST = "dspy_live.cost_usd"
ESTIMATED = "dspy_live.usage.estimated"
KEY = "dspy_live.key"
INPUTS = "dspy_live.inputs"
OUTPUTS = "dspy_live.outputs"
FIRST_TOKEN = "dspy_live.first_token"

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


def provider_of(model: str) -> str:
    """Return the conventions' name for the provider in ``"provider/model"``; empty when none is named."""
    provider, _, rest = model.partition("/")
    return _PROVIDERS.get(provider, provider) if rest else ""
