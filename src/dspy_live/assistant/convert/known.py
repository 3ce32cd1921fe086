"""DSPy's own names: those that await, and those that only block.

From DSPy 3.4.1: a module awaits when it has an ``aforward`` of its own. ``CodeAct`` inherits one
from ``ReAct`` that does not run the code, so it counts as synchronous.
"""

from __future__ import annotations

NATIVE = frozenset({"Predict", "ChainOfThought", "ReAct", "ReActV2", "RLM", "LM", "Embedder"})
"""Instances with a true ``acall``."""

SYNC_MODULES = frozenset(
    {"BestOfN", "Refine", "MultiChainComparison", "ProgramOfThought", "CodeAct", "Flex", "Module", "Avatar"}
)
"""Modules that only have ``forward``: they await through ``dspy_live.asyncify``."""

BLOCKING = frozenset(
    {"Parallel", "Evaluate", "Retrieve", "ColBERTv2", "Embeddings", "EmbeddingsWithScores", "WeaviateRM"}
    | {"DatabricksRM", "KNN"}
)
"""Callables that wait without a way to await them: they go to a thread."""

OPTIMISERS = frozenset(
    {"BootstrapFewShot", "BootstrapFewShotWithRandomSearch", "BootstrapRS", "BootstrapFinetune", "MIPROv2", "COPRO"}
    | {"GEPA", "SIMBA", "KNNFewShot", "LabeledFewShot", "Ensemble", "InferRules", "BetterTogether", "GRPO"}
)
"""Their ``compile`` runs programs for a long time and returns a program."""

OF_EVERY_MODULE = frozenset(
    {"named_predictors", "predictors", "named_parameters", "parameters", "named_sub_modules", "get_lm", "set_lm"}
    | {"dump_state", "load_state", "save", "load", "deepcopy", "reset_copy", "inspect_history", "map_named_predictors"}
)
"""Methods of ``dspy.Module`` that ask no LM."""

WITH_TOOLS = frozenset({"ReAct", "ReActV2", "CodeAct"})

CONSUMERS = frozenset({"sum", "list", "tuple", "set", "frozenset", "max", "min", "sorted", "dict", "join", "len"})
"""Functions that read a generator to its end, so that a list in its place changes nothing."""

CALLERS = frozenset({"map", "starmap", "imap", "filter", "submit"})
"""Functions and methods of pools that call what they are handed."""

SAFE_DECORATORS = frozenset(
    {"staticmethod", "classmethod", "override", "typing.override", "typing_extensions.override"}
    | {"mlflow.trace", "weave.op", "typing.no_type_check", "langsmith.traceable", "logfire.instrument"}
)
"""Decorators that treat a coroutine function as they treat a function."""

ROUTES = frozenset({"get", "post", "put", "patch", "delete", "api_route", "websocket"})
"""Methods of a FastAPI app or router whose handlers may be coroutine functions."""

SERVERS = frozenset({"uvicorn.run", "hypercorn.run", "app.run", "demo.launch"})
"""The usual names of functions that serve until they are stopped."""

BLOCKING_CALLS = (
    *("requests.get", "requests.post", "requests.put", "requests.request", "httpx.get", "httpx.post"),
    *("urllib.request.urlopen", "subprocess.run", "subprocess.check_output", "subprocess.check_call"),
)
"""Library functions that wait and are often called in a program: in asynchronous code they go to a thread."""


def short(qualified: str | None) -> str | None:
    """Return DSPy's own name of a qualified name: ``"dspy.predict.Predict"`` is ``"Predict"``."""
    if qualified is None or not qualified.startswith(("dspy.", "dspy_live.")):
        return None
    return qualified.rpartition(".")[2]
