"""Where an LM's calls go: the service behind one LM, chosen by its model name and settings.

OpenAI-compatible endpoints take the fast path; every other provider DSPy's own engines; an LM that
was given an endpoint of its own (the simulated LM, a user's Service) that one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from dspy.utils.exceptions import LMNotConfiguredError

from dspy_live.core.call import Call
from dspy_live.core.events import Result
from dspy_live.core.service import Service, compose
from dspy_live.core.sink import Sink
from dspy_live.programs.internals import CLIENT_KEYS, provider_definition, select_backend
from dspy_live.programs.lm.dspy_endpoint import DspyEndpoint
from dspy_live.programs.lm.layers import endpoint_layers
from dspy_live.programs.lm.openai_endpoint import OpenAIEndpoint
from dspy_live.programs.lm.seam.lm_call import chat_call
from dspy_live.programs.lm.server_address import server_of
from dspy_live.programs.lm.token_limit import limit_name
from dspy_live.programs.run.run import current_run
from dspy_live.runtime.http.transport import Timeouts
from dspy_live.runtime.runtime import default_runtime
from dspy_live.sansio.openai import chat_headers, chat_url

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM
    from dspy_live.programs.lm.seam.lm_call import LMCall

_OPENAI = "https://api.openai.com/v1"
# lm15's names of the providers whose wire is OpenAI's without a difference that we would have to know.
_SAME_WIRE = frozenset({"openai-chat", "vllm", "ollama", "groq", "openrouter", "deepseek"})
# Settings that only DSPy's engines carry out.
_NOT_OURS = ("prompt_cache", "custom_llm_provider", "api_version", "azure_ad_token_provider")
_PLAIN = (type(None), int, float)
_EXTRAS = ("headers", "extra_headers", "extra_query")


_SETTINGS = ("api_base", "base_url", "api_key", "organization", "project", "timeout", *_EXTRAS, *_NOT_OURS)
_MOST_KEPT = 64

# An endpoint has no state, so that one does for all calls of the same settings.
_kept: dict[tuple[Any, ...], OpenAIEndpoint] = {}


def endpoint_for(lm: LM, lm_call: LMCall) -> Service:
    """Return the service that answers this call. Raises DSPy's ``LMNotConfiguredError`` without a key."""
    own = lm.live.endpoint
    if own is not None:
        return own
    state, inputs = lm.__dict__, lm_call.inputs
    asked = (
        lm.model, lm._providers, lm.model_type, state.get("_engine_spec"), lm_call.chat, *map(inputs.get, _SETTINGS)
    )  # fmt: skip
    try:
        kept = _kept.get(asked)
    except TypeError:  # settings that are no plain values
        kept = None
    if kept is not None:
        return kept
    route = _route(lm) if _is_fast(lm, lm_call) else None
    if route is None:
        return DspyEndpoint(lm, lm_call)
    made = _openai(lm, inputs, route)
    if _says_all(inputs):
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[asked] = made
    return made


def _says_all(inputs: Mapping[str, Any]) -> bool:
    """True where an endpoint is made of plain settings of the LM's alone, and of nothing in the environment."""
    plain = isinstance(inputs.get("api_key"), str) and isinstance(inputs.get("api_base") or inputs.get("base_url"), str)
    return plain and type(inputs.get("timeout")) in _PLAIN and inputs.keys().isdisjoint(_EXTRAS)


class LMService:
    """One LM as a Service of its own, for a layer that asks another LM than the program's: ``Fallback(lm.service())``.

    The call's inputs are the keyword arguments of a chat completion; model, address, key and the other
    settings of a client are this LM's, and its requests are booked under its name.
    """

    def __init__(self, lm: LM) -> None:
        self.lm = lm

    def __repr__(self) -> str:
        return f"LMService({self.lm.model!r})"

    async def __call__(self, call: Call, sink: Sink) -> Result:
        lm = self.lm
        theirs = {k: v for k, v in call.inputs.items() if k not in CLIENT_KEYS and k != "model"}
        ours = {k: v for k, v in lm.kwargs.items() if k in CLIENT_KEYS}
        legacy = {**theirs, **ours, "model": lm.model}
        run = current_run()
        account = (run.runtime if run is not None else default_runtime()).account
        endpoint = endpoint_for(lm, chat_call(lm, legacy))
        service = compose(endpoint, endpoint_layers(lm, account, server=server_of(endpoint)))
        return await service(call.but(inputs=legacy, model=lm.model), sink)


def _is_fast(lm: LM, lm_call: LMCall) -> bool:
    inputs = lm_call.inputs
    return (
        lm.model_type == "chat"
        and lm_call.chat
        and isinstance(engine := lm.__dict__.get("_engine_spec", "auto"), str)
        and engine == "auto"
        and (inputs.keys().isdisjoint(_NOT_OURS) or all(inputs.get(key) is None for key in _NOT_OURS))
    )


class _Route(NamedTuple):
    """An OpenAI-compatible wire: its name of the model, its usual address, where keys are found, its limit's name."""

    model: str
    base: str | None
    key_names: tuple[str, ...]
    limit: str


_routes: dict[tuple[Any, ...], _Route | None] = {}


def _route(lm: LM) -> _Route | None:
    """Return the route of a model; ``None`` where its wire is not OpenAI's."""
    key = (lm.model, lm._providers)
    if key not in _routes:
        _routes[key] = _find_route(lm)
    return _routes[key]


def _find_route(lm: LM) -> _Route | None:
    prefix, separator, rest = lm.model.partition("/")
    if separator and prefix == "openai":
        return _Route(rest, None, ("OPENAI_API_KEY",), limit_name(None))
    resolution = select_backend(lm.as_dspy(), {}).resolution
    if resolution is None or resolution.declared or resolution.provider not in _SAME_WIRE:
        return None
    access = getattr(provider_definition(resolution.provider), "access", None)
    base, keys = getattr(access, "base_url", None), tuple(getattr(access, "env_keys", ()))
    return _Route(resolution.model, base, keys, limit_name(resolution.compat))


def _openai(lm: LM, legacy: dict[str, Any], route: _Route) -> OpenAIEndpoint:
    base, key_names = route.base, route.key_names
    given = legacy.get("api_base") or legacy.get("base_url")
    if given is None and base is None:
        given = os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
    url = given or base or _OPENAI
    key = legacy.get("api_key") or next((os.environ[name] for name in key_names if os.environ.get(name)), None)
    if callable(key):
        key = key()
    if key is None and key_names and given is None:
        raise LMNotConfiguredError(
            f"no API key for {lm.model!r}: set {' or '.join(key_names)}, or pass api_key= to the LM "
            "(dspy_live.sim_lm() is an LM that needs no key)",
            model=lm.model,
        )
    asked = _Asked(lm.model, route, url, key, legacy.get("organization"), legacy.get("project"), legacy.get("timeout"))
    if type(key) is str and type(url) is str and type(asked.timeout) in _PLAIN and legacy.keys().isdisjoint(_EXTRAS):
        return _kept_endpoint(asked)
    return _endpoint(asked, legacy)


class _Asked(NamedTuple):
    """The settings that most endpoints are made of."""

    lm: str
    route: _Route
    url: str
    key: Any
    organization: Any
    project: Any
    timeout: Any


def _endpoint(asked: _Asked, extras: Mapping[str, Any] = MappingProxyType({})) -> OpenAIEndpoint:
    extra = {**(extras.get("headers") or {}), **(extras.get("extra_headers") or {})}
    headers = chat_headers(
        asked.key, stream=False, organization=asked.organization, project=asked.project, extra=extra or None
    )
    address = chat_url(asked.url, extras.get("extra_query"))
    model, limit = asked.route.model, asked.route.limit
    return OpenAIEndpoint(address, headers, model, _timeouts(asked.timeout), asked.lm, limit)


_kept_endpoint = functools.lru_cache(maxsize=64)(_endpoint)


def _timeouts(timeout: Any) -> Timeouts:
    """``timeout`` is DSPy's: a number of seconds, or an object with ``connect`` and ``read`` such as httpx's."""
    connect: float | None = 10.0
    read: float | None = None
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool):
        connect, read = min(10.0, float(timeout)), float(timeout)
    elif timeout is not None:
        connect, read = getattr(timeout, "connect", None), getattr(timeout, "read", None)
    return Timeouts(connect, read, read)
