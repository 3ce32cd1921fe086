"""Everything of DSPy that is not its public API and that we rely on, in one place.

``tests/programs/test_contract.py`` fails loudly when DSPy moves any of it. What is replaced in DSPy is named in
``docs/architecture.md``, and lives elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

from dspy.adapters._legacy_type_markers import _expand_legacy_custom_type_markers_in_chat_message as expand_markers
from dspy.adapters.base import Adapter
from dspy.adapters.chat_adapter import field_header_pattern
from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER
from dspy.adapters.utils import _format_input_list_field_value, parse_value
from dspy.clients import base_lm, execution, model_metadata
from dspy.clients._deprecation import _adapter_call, adapter_message_call, warn_openai_messages
from dspy.clients.backend_selection import CLIENT_KEYS, NATIVE_CLIENT_KEYS, select_backend
from dspy.clients.base_lm import LM_CLASS_STATE_KEY
from dspy.clients.call_context import _adapter_calls
from dspy.clients.call_result import CACHE_FORMAT, AttributeDict, CallResult, attributes, combine
from dspy.clients.capabilities import Capabilities, _capabilities
from dspy.clients.engines.lifecycle import aclosing_stream
from dspy.clients.engines.stream_guard import achecked_stream
from dspy.clients.errors import error_boundary, wrap_error
from dspy.clients.execution import (
    IGNORED_CACHE_KEYS,
    PreparedCall,
    _account_failed_call,
    _check_encodable,
    _engine,
    _hint_responses_api,
    _result,
    finalize,
    prepare,
)
from dspy.clients.legacy_requests import _strict_json_schema
from dspy.clients.lm import _is_openai_reasoning_model
from dspy.clients.model_metadata import _provider_names, rate
from dspy.dsp.utils.settings import DEFAULT_CONFIG, main_thread_config, settings, thread_local_overrides
from dspy.dsp.utils.utils import dotdict
from dspy.lm15 import LM15Error
from dspy.primitives import module
from dspy.primitives.prediction import Completions
from dspy.utils import callback
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback, with_callbacks
from dspy.utils.constants import IS_TYPE_UNDEFINED
from dspy.utils.exceptions import AdapterParseError, is_retryable_lm_error
from dspy.utils.parallelizer import ParallelExecutor

from dspy_live.runtime.forks import process_lock

# DSPy's engine, imported by its name in a string. This folder of DSPy is marked as typed and DSPy is not: a type
# checker that follows an import statement to it takes ``dspy`` for a package with nothing else in it, and then says
# "Module has no attribute" of every ``dspy.Predict`` in the user's own files.
_LM15 = "dspy._vendor.lm15"
map_http_error: Callable[..., Exception] = import_module(f"{_LM15}.errors").map_http_error
provider_definition: Callable[[str], Any] = import_module(f"{_LM15}.registry").lookup
StreamAccumulator: Callable[[Any], Any] = import_module(f"{_LM15}.result").StreamAccumulator
NATIVE_REQUEST_KEYS: frozenset[str] = import_module(f"{_LM15}.providers.openai_chat")._INGEST_CONFIG_KEYS
response_to_events: Callable[[Any], Iterator[Any]] = import_module(f"{_LM15}.result").response_to_events

__all__ = [
    "ACTIVE_CALL_ID",
    "CACHE_FORMAT",
    "CLIENT_KEYS",
    "CUSTOM_TYPE_START_IDENTIFIER",
    "DEFAULT_CONFIG",
    "IGNORED_CACHE_KEYS",
    "IS_TYPE_UNDEFINED",
    "LM_CLASS_STATE_KEY",
    "NATIVE_CLIENT_KEYS",
    "NATIVE_REQUEST_KEYS",
    "Adapter",
    "AdapterParseError",
    "AttributeDict",
    "BaseCallback",
    "CallResult",
    "Capabilities",
    "Completions",
    "LM15Error",
    "ParallelExecutor",
    "PreparedCall",
    "StreamAccumulator",
    "_account_failed_call",
    "_adapter_call",
    "_adapter_calls",
    "_capabilities",
    "_check_encodable",
    "_engine",
    "_format_input_list_field_value",
    "_hint_responses_api",
    "_is_openai_reasoning_model",
    "_provider_names",
    "_result",
    "_strict_json_schema",
    "achecked_stream",
    "aclosing_stream",
    "adapter_message_call",
    "attributes",
    "base_lm",
    "callback",
    "combine",
    "current_settings",
    "error_boundary",
    "execution",
    "expand_markers",
    "field_header_pattern",
    "finalize",
    "is_own_method",
    "is_retryable_lm_error",
    "load_model_metadata",
    "main_thread_config",
    "map_http_error",
    "module",
    "overrides",
    "parse_value",
    "prepare",
    "provider_definition",
    "rate",
    "response_to_events",
    "select_backend",
    "settings",
    "thread_local_overrides",
    "warn_openai_messages",
    "with_callbacks",
    "wrap_error",
]


_metadata_lock = process_lock()
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


def current_settings() -> dict[str, Any]:
    """Return all settings that are in force here, as a new object for ``thread_local_overrides``, to be changed.

    ``dspy.context`` sets such a one, with its changes, in four times the time.
    """
    now: dict[str, Any] = dotdict({**main_thread_config, **thread_local_overrides.get()})
    return now


overrides: Callable[[], dict[str, Any]] = thread_local_overrides.get
"""Returns the settings that are overridden here, by ``dspy.context`` or a run; do not change them."""


def is_own_method(method: Any, home: ModuleType) -> bool:
    """True for a function of DSPy's module ``home``, inside of its wrapper for callbacks and no other.

    By ``type()``: a wrapper may claim the class of what it wraps.
    """
    inner = getattr(method, "__wrapped__", None)
    return (
        type(method) is FunctionType
        and type(inner) is FunctionType
        and method.__globals__ is vars(callback)
        and inner.__globals__ is vars(home)
    )
