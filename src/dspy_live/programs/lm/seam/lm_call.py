"""One LM call as our engine, its layers, endpoints and cache see it, whatever form DSPy gave it.

DSPy 3.4's adapters give messages in OpenAI's form. A typed ``dspy.lm15.Request`` is taken as well, from
``lm(Request)`` and from our engine objects; from DSPy 3.5 on it is the only form. The engine is asked with the keyword
arguments of a chat completion in both cases, and DSPy's own writer puts a Request into that form.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
from dspy.lm15 import LM15Error, OpenAIChatLM, Request

from dspy_live.programs.internals import CLIENT_KEYS, PreparedCall, select_backend

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM


class LMCall(msgspec.Struct, frozen=True):
    """What is asked of an LM, and how.

    Args:
        inputs: the keyword arguments of a chat completion, and the settings of the client.
        theirs: the same as DSPy has prepared it, for DSPy's own engines and the key of its cache.
        cache: the reply may come from the cache and is kept there.
        n: how many completions are wanted.
        chat: ``inputs`` say all of it; False for a Request that OpenAI's form can't hold.
        once: whoever asks repeats a failed call itself.
    """

    inputs: dict[str, Any]
    theirs: PreparedCall
    cache: bool = False
    n: int = 1
    chat: bool = True
    once: bool = False

    def __repr__(self) -> str:
        return f"LMCall({self.inputs.get('model')!r})"

    @property
    def request(self) -> Request | None:
        """The typed request, where the call came as one."""
        return self.theirs.request

    def key(self, lm: LM) -> dict[str, Any]:
        """Return what tells this call from another in the cache: the same key for a call that is awaited."""
        key: dict[str, Any] = self.theirs.key(lm, False)
        return key

    def single(self) -> LMCall:
        """Return the same call for one completion."""
        theirs = replace(self.theirs, legacy={k: v for k, v in self.theirs.legacy.items() if k != "n"}, n=1)
        inputs = {k: v for k, v in self.inputs.items() if k != "n"}
        return msgspec.structs.replace(self, inputs=inputs, theirs=theirs, n=1)


def lm_call_of(
    lm: LM, prepared: PreparedCall, client: Mapping[str, Any] | None = None, *, once: bool = False
) -> LMCall:
    """Return the call that DSPy has prepared for ``lm``.

    Args:
        lm: the LM that is asked.
        prepared: DSPy's own form of the call, of messages or of a Request.
        client: settings of the client that this one call was given, such as ``api_key``.
        once: whoever asks repeats a failed call itself.
    """
    client = client or {}
    if prepared.request is None:
        prepared.legacy.update(client)
        return LMCall(prepared.legacy, prepared, prepared.cache, prepared.n, once=once)
    own = {key: value for key, value in lm.kwargs.items() if key in CLIENT_KEYS}
    asked = _chat_inputs(lm, prepared.request)
    prepared.legacy.update(client)
    inputs = {**(asked or {}), **own, **client, "model": lm.model}
    return LMCall(inputs, prepared, prepared.cache, 1, asked is not None, once)


def chat_call(lm: LM, inputs: dict[str, Any]) -> LMCall:
    """Return a call of ``lm`` with these keyword arguments of a chat completion, uncached."""
    n = inputs.get("n") or 1
    return LMCall(inputs, PreparedCall(None, inputs.get("messages"), {}, inputs, None, False, n, True), n=n)


def _chat_inputs(lm: LM, request: Request) -> dict[str, Any] | None:
    """Return a Request as the keyword arguments of a chat completion; ``None`` where these can't hold it."""
    try:
        model, compat = _wire_of(lm)
        written: dict[str, Any] = writer(compat)._payload(replace(request, model=model), stream=False)
    except (LM15Error, TypeError, ValueError):
        return None  # DSPy's own engine takes it, or says what is wrong with it
    del written["model"]
    written.pop("stream", None)
    return written


_wires: dict[tuple[Any, ...], tuple[str, Any]] = {}


def _wire_of(lm: LM) -> tuple[str, Any]:
    """Return the model's name at its provider, and how that provider's form differs from OpenAI's."""
    key = (lm.model, lm.model_type, lm._providers)
    if key not in _wires:
        resolution = select_backend(lm.as_dspy(), {}).resolution
        _wires[key] = (lm.model.partition("/")[2] or lm.model, None)
        if resolution is not None:
            _wires[key] = (resolution.model, resolution.compat)
    return _wires[key]


class _Unconnected:
    """A transport for a writer that sends nothing."""

    def stream(self, request: Any) -> Any:
        raise RuntimeError("the writer of requests sends none")


@functools.lru_cache(maxsize=32)
def writer(compat: Any) -> Any:
    """Return DSPy's own writer and reader of OpenAI's form, as a provider speaks it that differs by ``compat``."""
    return OpenAIChatLM(api_key="not-used", transport=_Unconnected(), compat=compat)
