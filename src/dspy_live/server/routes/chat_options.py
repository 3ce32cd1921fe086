"""The parameters of a chat completion: those that a program can do, and a refusal by name of all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspy_live.core.schema import Field, Schema
from dspy_live.server.errors import BadRequest, Unsupported
from dspy_live.server.routes.inputs import CONFIG_OPTIONS

MOST_CHOICES = 16
"""The most choices of one request; each is a run of its own."""

_OWN = frozenset({"model", "messages", "stream", "stream_options", "n", "response_format", "session"})
_FOR_THE_LM = frozenset(CONFIG_OPTIONS) - {"n"}
_WITHOUT_EFFECT = frozenset(
    {
        "metadata",
        "parallel_tool_calls",  # where there are no tools
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "user",
    }
)
_OFF: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "store": (False,),
    "modalities": (["text"],),
}
"""Parameters that a program can't do, with the values that ask for nothing."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What a request asks for besides its messages.

    Args:
        config: LM options of the run.
        stream: reply in chunks.
        with_usage: end the chunks with one that has the usage.
        n: how many choices.
        fields: the outputs that the content is a JSON object of; ``None`` for the program's text.
    """

    config: Mapping[str, Any]
    stream: bool
    with_usage: bool
    n: int
    fields: tuple[str, ...] | None


def chat_options(body: Mapping[str, Any], schema: Schema) -> ChatOptions:
    """Return a request's options. Raises :class:`Unsupported` or :class:`BadRequest` with the parameter's name."""
    given = {name: value for name, value in body.items() if value is not None}
    for name in given:
        if name not in _OWN and name not in _FOR_THE_LM and name not in _WITHOUT_EFFECT:
            refuse_unless_off(name, given, _OFF)
    stream = given.get("stream", False)
    if not isinstance(stream, bool):
        raise BadRequest("'stream' must be true or false", param="stream")
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object", param="stream_options")
    n = given.get("n", 1)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_CHOICES:
        raise BadRequest(f"'n' must be a whole number from 1 to {MOST_CHOICES}; got {n!r}", param="n")
    if "session" in given and n > 1:
        raise BadRequest("a session goes on with one answer; ask with n=1", param="n")
    if stream and n > 1:
        raise Unsupported("several choices can't be streamed; ask with n=1 or without stream", param="n")
    config = {name: value for name, value in given.items() if name in _FOR_THE_LM}
    fields = _fields(given.get("response_format", {"type": "text"}), schema)
    return ChatOptions(config, stream, options.get("include_usage") is True, n, fields)


def refuse_unless_off(name: str, given: Mapping[str, Any], off: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise :class:`Unsupported` for a parameter that a program can't do, unless its value asks for nothing."""
    if any(given[name] == value and type(given[name]) is type(value) for value in off.get(name, ())):
        return
    if name in ("tools", "functions"):
        if given.get("tool_choice" if name == "tools" else "function_call") == "none":
            return
        raise Unsupported(f"{name!r}: a program can't call its client's tools; leave them out", param=name)
    raise Unsupported(f"{name!r} is nothing that a program can do; leave it out", param=name)


def _fields(wanted: Any, schema: Schema) -> tuple[str, ...] | None:
    described = wanted.get("json_schema") if isinstance(wanted, dict) else None
    return json_fields(wanted, described, schema, "response_format", "json_schema.schema")


def json_fields(wanted: Any, described: Any, schema: Schema, param: str, place: str) -> tuple[str, ...] | None:
    """Return the outputs that a reply is to be a JSON object of, or ``None`` for text.

    Args:
        wanted: the format that is asked for, an object with ``type``.
        described: the object that has its ``schema``.
        schema: the program's.
        param: the parameter's name, for errors.
        place: where the schema stands in it, for errors.
    """
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    outputs = {field.name: field for field in schema.outputs}
    if kind == "text":
        return None
    if kind == "json_object":
        return tuple(outputs)
    asked = described.get("schema") if isinstance(described, dict) and kind == "json_schema" else None
    if not isinstance(asked, dict):
        raise BadRequest(f"{param!r} must have the type text, json_object, or json_schema with {place}", param=param)
    properties = asked.get("properties")
    if asked.get("type", "object") != "object" or not isinstance(properties, dict):
        raise Unsupported("the schema must be an object's with properties: a program's outputs", param=param)
    for name, part in properties.items():
        _check_property(name, part, outputs, param, required=name in (asked.get("required") or ()))
    return tuple(name for name in properties if name in outputs)


def _check_property(name: str, part: Any, outputs: Mapping[str, Field], param: str, *, required: bool) -> None:
    field = outputs.get(name)
    if field is None:
        if required:
            has = ", ".join(f"{one.name!r} ({one.type})" for one in outputs.values())
            raise Unsupported(f"the program has no output {name!r}; it has {has}", param=param)
        return
    wanted, given = part.get("type") if isinstance(part, dict) else None, field.json_schema.get("type")
    allowed = wanted if isinstance(wanted, list) else [wanted]
    if wanted is None or given is None or given in allowed or (given == "integer" and "number" in allowed):
        return
    raise Unsupported(
        f"the program's output {name!r} is {field.type}, which is no {' or '.join(map(str, allowed))}", param=param
    )
