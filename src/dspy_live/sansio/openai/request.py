"""A chat-completions request from OpenAI-style keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import orjson

CLIENT_KEYS = frozenset(
    {
        # where, who and how often: the client's business
        "api_key", "api_base", "base_url", "api_version", "api_type", "organization", "project",
        "headers", "extra_headers", "default_headers", "extra_query", "default_query",
        "timeout", "request_timeout", "stream_timeout", "num_retries", "max_retries", "retry_strategy",
        "retry_policy", "fallbacks", "context_window_fallback_dict", "content_policy_fallbacks",
        "http_client", "client", "shared_session", "ssl_verify",
        "azure_ad_token", "azure_ad_token_provider",
        # DSPy's and LiteLLM's own
        "rollout_id", "cache", "caching", "prompt_cache", "model_type", "custom_llm_provider", "model_list",
        "base_model", "drop_params", "additional_drop_params", "allowed_openai_params", "mock_response",
        "mock_timeout", "mock_tool_calls", "logger_fn", "verbose", "no-log", "litellm_params", "litellm_logging_obj",
        "litellm_call_id", "litellm_trace_id", "litellm_session_id", "input_cost_per_token",
        "output_cost_per_token", "hf_model_name", "use_developer_role",
    }
)  # fmt: skip
"""Keyword arguments of an LM that are for the client and never sent to the endpoint."""

_NOT_AS_GIVEN = CLIENT_KEYS | {"stream", "stream_options", "extra_body"}


def chat_body(legacy: Mapping[str, Any], *, stream: bool, usage: bool = True, model: str | None = None) -> bytes:
    """Return the JSON body of a chat-completions request.

    Args:
        legacy: OpenAI-style keyword arguments. ``None`` values and :data:`CLIENT_KEYS` are left out,
            all else is sent as it is; ``extra_body`` is merged over the top level.
        stream: ask for a stream.
        usage: ask for the usage in the stream (``stream_options``); some endpoints refuse it.
        model: sent in place of ``legacy["model"]``, for names with a provider's prefix.

    Raises ``TypeError`` that names the keyword whose value is not JSON.
    """
    body = {k: v for k, v in legacy.items() if v is not None and k not in _NOT_AS_GIVEN}
    options = legacy.get("stream_options")
    extra = legacy.get("extra_body")
    if extra:
        body.update(extra)
        body.pop("stream", None)
        options = body.pop("stream_options", None) or options
    if model is not None:
        body["model"] = model
    if stream:
        body["stream"] = True
        if usage:
            body["stream_options"] = {**(options or {}), "include_usage": True}
    try:
        return orjson.dumps(body, default=_plain, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as exc:
        raise TypeError(_wrong_value(body, exc)) from None


def chat_url(api_base: str, query: Mapping[str, Any] | None = None) -> str:
    """Return the chat-completions URL of an API base such as ``https://host/v1``.

    A base that already ends in ``/chat/completions`` is kept, and so is its query string.
    """
    parts = urlsplit(api_base.strip())
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    joined = "&".join(piece for piece in (parts.query, urlencode(dict(query)) if query else "") if piece)
    return urlunsplit((parts.scheme, parts.netloc, path, joined, ""))


def chat_headers(
    api_key: str | None,
    *,
    stream: bool = False,
    organization: str | None = None,
    project: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return the request's headers; ``extra`` wins, whatever its case, and a ``None`` there removes a header."""
    headers = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream" if stream else "application/json",
    }
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    if organization:
        headers["OpenAI-Organization"] = organization
    if project:
        headers["OpenAI-Project"] = project
    if extra:
        taken = {name.lower() for name in extra}
        headers = {name: value for name, value in headers.items() if name.lower() not in taken}
        headers.update((name, str(value)) for name, value in extra.items() if value is not None)
    return headers


def _plain(value: Any) -> Any:
    """JSON for what orjson does not know: pydantic models, sets, other mappings."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(exclude_none=True)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _wrong_value(body: Mapping[str, Any], error: TypeError) -> str:
    for name, value in body.items():
        try:
            orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
        except TypeError as exc:
            shown = value.__name__ if isinstance(value, type) else type(value).__name__
            return f"the LM argument {name!r} ({shown}) cannot be sent as JSON: {exc}"
    return f"the LM arguments cannot be sent as JSON: {error}"
