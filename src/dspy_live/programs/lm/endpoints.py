"""Where an LM's calls go: the service behind one LM, chosen by its model name and settings.

OpenAI-compatible endpoints take the fast path; every other provider DSPy's own engines; an LM that
was given an endpoint of its own (the simulated LM, a user's Service) that one.
"""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from dspy.utils.exceptions import LMNotConfiguredError

from dspy_live.core.call import Call
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service
from dspy_live.programs.internals import CLIENT_KEYS, PreparedCall, select_backend
from dspy_live.programs.lm.booking import Booked
from dspy_live.programs.lm.dspy_endpoint import DspyEndpoint
from dspy_live.programs.lm.openai_endpoint import OpenAIEndpoint
from dspy_live.programs.lm.timely import Timely
from dspy_live.runtime.http.transport import Timeouts
from dspy_live.sansio.openai import chat_headers, chat_url

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM

_OPENAI = "https://api.openai.com/v1"
# lm15's names of the providers whose wire is OpenAI's without a difference that we would have to know.
_SAME_WIRE = frozenset({"openai-chat", "vllm", "ollama", "groq", "openrouter", "deepseek"})
# Client settings that only DSPy's engines carry out.
_NOT_OURS = ("custom_llm_provider", "api_version", "azure_ad_token_provider")


def endpoint_for(lm: LM, call: PreparedCall) -> Service:
    """Return the service that answers this call. Raises DSPy's ``LMNotConfiguredError`` without a key."""
    service, live = _endpoint_for(lm, call), lm.live
    if live.first_token_timeout is None and live.idle_timeout is None:
        return service
    return Timely(service, live.first_token_timeout, live.idle_timeout, lm.model)


def _endpoint_for(lm: LM, call: PreparedCall) -> Service:
    if lm.live.endpoint is not None:
        return lm.live.endpoint
    if not _is_fast(lm, call):
        return DspyEndpoint(lm, call)
    route = _route(lm)
    if route is None:
        return DspyEndpoint(lm, call)
    return _openai(lm, call.legacy, *route)


class LMService:
    """One LM as a Service of its own, for a layer that asks another LM than the program's: ``Fallback(lm.service())``.

    The call's inputs are the keyword arguments of a chat completion; model, address, key and the other
    settings of a client are this LM's, and it is this LM that is booked.
    """

    def __init__(self, lm: LM) -> None:
        self.lm = lm

    def open(self, call: Call) -> AbstractAsyncContextManager[Receiver[Event]]:
        """Ask this LM in place of the one that the call was made for."""
        theirs = {k: v for k, v in call.inputs.items() if k not in CLIENT_KEYS and k != "model"}
        ours = {k: v for k, v in self.lm.kwargs.items() if k in CLIENT_KEYS}
        legacy = {**theirs, **ours, "model": self.lm.model}
        prepared = PreparedCall(None, legacy.get("messages"), {}, legacy, None, False, legacy.get("n") or 1, True)
        opened: AbstractAsyncContextManager[Receiver[Event]] = Booked(endpoint_for(self.lm, prepared), self.lm).open(
            call.but(inputs=legacy)
        )
        return opened


def _is_fast(lm: LM, call: PreparedCall) -> bool:
    legacy = call.legacy
    return (
        lm.model_type == "chat"
        and call.request is None
        and isinstance(lm.__dict__.get("_engine_spec", "auto"), str)
        and lm.__dict__.get("_engine_spec", "auto") == "auto"
        and legacy.get("prompt_cache") is None
        and all(legacy.get(key) is None for key in _NOT_OURS)
    )


_routes: dict[tuple[Any, ...], tuple[str, str | None, tuple[str, ...]] | None] = {}


def _route(lm: LM) -> tuple[str, str | None, tuple[str, ...]] | None:
    """Return the wire's model name, the base URL and the names of key variables; ``None``: not OpenAI's wire."""
    key = (lm.model, lm._providers)
    if key not in _routes:
        _routes[key] = _find_route(lm)
    return _routes[key]


def _find_route(lm: LM) -> tuple[str, str | None, tuple[str, ...]] | None:
    prefix, separator, rest = lm.model.partition("/")
    if separator and prefix == "openai":
        return rest, None, ("OPENAI_API_KEY",)
    from dspy._vendor.lm15.registry import lookup

    resolution = select_backend(lm.as_dspy(), {}).resolution
    if resolution is None or resolution.declared or resolution.provider not in _SAME_WIRE:
        return None
    definition = lookup(resolution.provider)
    access = getattr(definition, "access", None)
    return resolution.model, getattr(access, "base_url", None), tuple(getattr(access, "env_keys", ()))


def _openai(lm: LM, legacy: dict[str, Any], model: str, base: str | None, key_names: tuple[str, ...]) -> OpenAIEndpoint:
    given = legacy.get("api_base") or legacy.get("base_url")
    if given is None and base is None:
        given = os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
    url = given or base or _OPENAI
    key = legacy.get("api_key") or next((os.environ[name] for name in key_names if os.environ.get(name)), None)
    if callable(key):
        key = key()
    if key is None and key_names and given is None:
        raise LMNotConfiguredError(
            f"no API key for {lm.model!r}: set {' or '.join(key_names)}, or pass api_key= to the LM", model=lm.model
        )
    extra = {**(legacy.get("headers") or {}), **(legacy.get("extra_headers") or {})}
    headers = chat_headers(
        key,
        stream=False,
        organization=legacy.get("organization"),
        project=legacy.get("project"),
        extra=extra or None,
    )
    return OpenAIEndpoint(chat_url(url, legacy.get("extra_query")), headers, model, _timeouts(legacy), lm.model)


def _timeouts(legacy: dict[str, Any]) -> Timeouts:
    """``timeout`` is DSPy's: a number of seconds, or an object with ``connect`` and ``read`` such as httpx's."""
    timeout = legacy.get("timeout")
    connect: float | None = 10.0
    read: float | None = None
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool):
        connect, read = min(10.0, float(timeout)), float(timeout)
    elif timeout is not None:
        connect, read = getattr(timeout, "connect", None), getattr(timeout, "read", None)
    return Timeouts(connect, read, read)
