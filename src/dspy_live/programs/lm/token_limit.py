"""The name that an LM call's limit of tokens has on the wire: ``max_tokens`` or ``max_completion_tokens``.

OpenAI's reasoning models refuse ``max_tokens``, other servers know nothing else. The choice is that of DSPy 3.4: its
own engine writes a limit under the name that a provider has for it, and what it hands to LiteLLM goes out as it was
given, but for OpenAI's reasoning models.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from dspy.lm15 import Config, Message, Request

from dspy_live.programs.internals import NATIVE_CLIENT_KEYS, NATIVE_REQUEST_KEYS, _is_openai_reasoning_model
from dspy_live.programs.lm.seam.lm_call import writer

_NAMES = ("max_tokens", "max_completion_tokens")
_NATIVE = NATIVE_REQUEST_KEYS | NATIVE_CLIENT_KEYS | {"n", "rollout_id", "num_generations", "prompt_cache"}

_is_reasoning_model: Callable[[str], bool] = functools.lru_cache(maxsize=256)(_is_openai_reasoning_model)


def limit_name(compat: Any) -> str:
    """Return the name of the limit on the wire of a provider, whose form differs by ``compat`` from OpenAI's."""
    request = Request(model="m", messages=(Message.user("m"),), config=Config(max_tokens=1))
    written = writer(compat)._payload(request, stream=False)
    return next(name for name in _NAMES if name in written)


def with_named_limit(inputs: Mapping[str, Any], name: str, model: str) -> Mapping[str, Any]:
    """Return the keyword arguments of a chat completion with their limit under the name that ``model`` takes.

    Args:
        inputs: as the LM was called; returned as they are where there is no limit, or none to be renamed.
        name: what the provider of ``model`` calls the limit.
        model: the LM's name with the provider's prefix, as ``"openai/gpt-5"``.
    """
    if inputs.get("max_tokens") is None and inputs.get("max_completion_tokens") is None:
        return inputs
    given = [key for key in _NAMES if inputs.get(key) is not None]
    differ = len(given) == 2 and inputs[given[0]] != inputs[given[1]]
    if differ or not _is_native(inputs, model):
        # DSPy hands it to LiteLLM, which renames for reasoning models alone.
        if not model.startswith("openai/") or not _is_reasoning_model(model):
            return inputs
        name = "max_completion_tokens"
    if given == [name]:
        return inputs
    limit = inputs[given[-1]]  # of two that differ the one of the newer name, as LiteLLM has it
    return {**{key: value for key, value in inputs.items() if key not in _NAMES}, name: limit}


def _is_native(inputs: Mapping[str, Any], model: str) -> bool:
    """True where DSPy's own engine would carry the call: no option that it does not know, no gateway by variable."""
    if not inputs.keys() <= _NATIVE and any(inputs[key] is not None for key in inputs.keys() - _NATIVE):
        return False
    prefix = model.partition("/")[0].upper()
    return not (os.environ.get(f"{prefix}_API_BASE") or os.environ.get(f"{prefix}_BASE_URL"))
