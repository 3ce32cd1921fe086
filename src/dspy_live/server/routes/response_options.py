"""The parameters of a response: those that a program can do, and a refusal by name of all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspy_live.core.schema import Schema
from dspy_live.server.errors import BadRequest
from dspy_live.server.routes.chat_options import json_fields, refuse_unless_off
from dspy_live.server.routes.inputs import session_name

_OWN = frozenset(
    {
        "model",
        "input",
        "instructions",
        "stream",
        "stream_options",
        "text",
        "reasoning",
        "store",
        "previous_response_id",
        "conversation",
        "session",
    }
)
_FOR_THE_LM = {
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_output_tokens": "max_tokens",
}
_WITHOUT_EFFECT = frozenset(
    {
        "include",
        "max_tool_calls",
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "truncation",
        "user",
    }
)
_OFF: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "background": (False,),
    "top_logprobs": (0,),
    "context_management": ([],),
}
_DEFAULTS: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "truncation": "disabled",
    "user": None,
}
"""The parameters that a response repeats, with what it says where they were not given."""


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """What a request asks for besides its input.

    Args:
        config: LM options of the run.
        stream: reply in events.
        fields: the outputs that the text is a JSON object of; ``None`` for the program's text.
        store: keep the turn, so that another response can follow it.
        previous: the id of the response that this one follows, or empty.
        conversation: the session that it goes on with, or empty.
        settings: the fields of the request that the response repeats.
    """

    config: Mapping[str, Any]
    stream: bool
    fields: tuple[str, ...] | None
    store: bool
    previous: str
    conversation: str
    settings: dict[str, Any]


def response_options(body: Mapping[str, Any], schema: Schema) -> ResponseOptions:
    """Return a request's options. Raises :class:`Unsupported` or :class:`BadRequest` with the parameter's name."""
    given = {name: value for name, value in body.items() if value is not None}
    for name in given:
        if name not in _OWN and name not in _FOR_THE_LM and name not in _WITHOUT_EFFECT:
            refuse_unless_off(name, given, _OFF)
    text = _object(given, "text")
    wanted = text.get("format") or {"type": "text"}
    fields = json_fields(wanted, wanted, schema, "text.format", "a schema")
    config = {ours: given[name] for name, ours in _FOR_THE_LM.items() if name in given}
    reasoning = _object(given, "reasoning")
    if (effort := reasoning.get("effort")) is not None:
        config["reasoning_effort"] = effort
    previous, conversation = _name(given, "previous_response_id"), _conversation(given)
    if previous and conversation:
        raise BadRequest(
            "give previous_response_id or a conversation, not both: each names what came before",
            param="previous_response_id",
        )
    settings = {name: given.get(name, default) for name, default in _DEFAULTS.items()}
    settings |= {"model": given.get("model"), "tools": [], "tool_choice": given.get("tool_choice", "auto")}
    settings |= {"text": text | {"format": wanted}, "reasoning": reasoning or None, "background": False}
    settings |= {"service_tier": "default", "top_logprobs": 0}
    if conversation:
        settings["conversation"] = {"id": conversation}
    store = _flag(given, "store", default=True)
    return ResponseOptions(
        config, _flag(given, "stream", default=False), fields, store, previous, conversation, settings
    )


def _flag(given: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name!r} must be true or false", param=name)
    return value


def _object(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = given.get(name, {})
    if not isinstance(value, dict):
        raise BadRequest(f"{name!r} must be an object", param=name)
    return value


def _name(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise BadRequest(f"{name!r} must be a string", param=name)
    return value


def _conversation(given: Mapping[str, Any]) -> str:
    value = given.get("conversation")
    if isinstance(value, dict):
        value = value.get("id", "")
    if value is None:
        value = given.get("session")
    return session_name(value) if value is not None else ""
