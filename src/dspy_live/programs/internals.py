"""Everything of DSPy that is not its public API and that we rely on, in one place.

``tests/programs/test_contract.py`` fails loudly when DSPy moves any of it. What is replaced in DSPy is named in
``docs/architecture.md``, and lives elsewhere.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from dspy.adapters.base import Adapter
from dspy.clients import model_metadata
from dspy.clients._deprecation import _adapter_call, warn_openai_messages
from dspy.clients.backend_selection import CLIENT_KEYS, select_backend
from dspy.clients.base_lm import LM_CLASS_STATE_KEY
from dspy.clients.call_result import CACHE_FORMAT, AttributeDict, CallResult, attributes, combine
from dspy.clients.errors import error_boundary, wrap_error
from dspy.clients.execution import (
    IGNORED_CACHE_KEYS,
    PreparedCall,
    _account_failed_call,
    _hint_responses_api,
    aexecute,
    execute,
    finalize,
    prepare,
)
from dspy.clients.legacy_requests import _strict_json_schema
from dspy.dsp.utils.settings import DEFAULT_CONFIG, main_thread_config, settings, thread_local_overrides
from dspy.lm15 import LM15Error
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback, with_callbacks
from dspy.utils.exceptions import is_retryable_lm_error

# DSPy's engine, imported by its name in a string. This folder of DSPy is marked as typed and DSPy is not: a type
# checker that follows an import statement to it takes ``dspy`` for a package with nothing else in it, and then says
# "Module has no attribute" of every ``dspy.Predict`` in the user's own files.
_ENGINE = "dspy._vendor.lm15"
map_http_error: Callable[..., Exception] = import_module(f"{_ENGINE}.errors").map_http_error
provider_definition: Callable[[str], Any] = import_module(f"{_ENGINE}.registry").lookup
StreamAccumulator: Callable[[Any], Any] = import_module(f"{_ENGINE}.result").StreamAccumulator

__all__ = [
    "ACTIVE_CALL_ID",
    "CACHE_FORMAT",
    "CLIENT_KEYS",
    "DEFAULT_CONFIG",
    "IGNORED_CACHE_KEYS",
    "LM_CLASS_STATE_KEY",
    "Adapter",
    "AttributeDict",
    "BaseCallback",
    "CallResult",
    "LM15Error",
    "PreparedCall",
    "StreamAccumulator",
    "_account_failed_call",
    "_adapter_call",
    "_hint_responses_api",
    "_strict_json_schema",
    "aexecute",
    "attributes",
    "combine",
    "error_boundary",
    "execute",
    "finalize",
    "is_retryable_lm_error",
    "load_model_metadata",
    "main_thread_config",
    "map_http_error",
    "overrides",
    "prepare",
    "provider_definition",
    "select_backend",
    "settings",
    "thread_local_overrides",
    "warn_openai_messages",
    "with_callbacks",
    "wrap_error",
]


_metadata_lock = threading.Lock()
_LOCAL = "LITELLM_LOCAL_MODEL_COST_MAP"


def load_model_metadata() -> None:
    """Let DSPy read its table of models from its own package, once.

    Left to itself it asks a remote address first and waits up to 5 s, on the event loop. Who has set
    one of LiteLLM's two variables for that table has decided otherwise, and is obeyed.
    """
    if model_metadata._data is not None or _LOCAL in os.environ or "LITELLM_MODEL_COST_MAP_URL" in os.environ:
        return
    with _metadata_lock:
        os.environ[_LOCAL] = "true"
        try:
            model_metadata._load()
        finally:
            os.environ.pop(_LOCAL, None)


def overrides() -> dict[str, Any]:
    """Return the settings that are overridden here, by ``dspy.context``; do not change it."""
    current: dict[str, Any] = thread_local_overrides.get()
    return current
