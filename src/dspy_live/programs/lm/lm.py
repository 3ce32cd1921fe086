"""``dspy_live.LM``: a ``dspy.LM`` whose calls run on our asynchronous engine.

DSPy prepares the call and books it as ever; between the two stands our engine. ``forward`` is not
overridden: that would make it a legacy LM, without cache and on its way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import dspy

from dspy_live.core.service import Layer, Service
from dspy_live.programs.fields.origin import origin_of
from dspy_live.programs.internals import (
    CLIENT_KEYS,
    LM_CLASS_STATE_KEY,
    CallResult,
    Capabilities,
    PreparedCall,
    _adapter_call,
    adapter_message_call,
    finalize,
    overrides,
    prepare,
    warn_openai_messages,
    with_callbacks,
)
from dspy_live.programs.lm import engine
from dspy_live.programs.lm.capabilities import AsyncEngineMark, EngineMark, named_capabilities
from dspy_live.programs.lm.endpoints import LMService
from dspy_live.programs.lm.layers import lm_layers
from dspy_live.programs.lm.seam.engine_objects import engine_lm_of
from dspy_live.programs.lm.seam.lm_call import LMCall, lm_call_of
from dspy_live.programs.lm.seam.wrapped_calls import HandedOver, handed_over, is_wrapped
from dspy_live.programs.run.run import current_run
from dspy_live.runtime.execution import bridge
from dspy_live.runtime.runtime import default_runtime

Streaming = Literal["auto", "always", "never"]
_DSPY_LM = "dspy.clients.lm.LM"


@dataclass(frozen=True, slots=True)
class LMOptions:
    """The options of an LM of ours beside a ``dspy.LM``'s own keywords; never saved with a program."""

    stream: Streaming = "auto"
    capabilities: Capabilities | None = None
    endpoint: Service | None = None
    first_token_timeout: float | None = None
    idle_timeout: float | None = None
    configured: bool = False

    def __post_init__(self) -> None:
        if self.stream not in ("auto", "always", "never"):
            raise ValueError(f"stream must be 'auto', 'always' or 'never'; got {self.stream!r}")
        for name in ("first_token_timeout", "idle_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} must be a positive number of seconds; got {seconds!r}")


_OPTIONS = ("stream", "capabilities", "endpoint", "first_token_timeout", "idle_timeout")
_DEFAULTS = LMOptions()


class LM(dspy.LM):
    """A language model for DSPy programs: asynchronous underneath, cancellable, streamed, metered.

    Every argument of ``dspy.LM`` works as there. OpenAI-compatible endpoints take the fast path,
    every other provider goes through DSPy's own engines. A program saved with it names ``dspy.LM``,
    so that it loads anywhere.

    Args:
        model: as for ``dspy.LM``: ``"openai/gpt-4o-mini"``.
        stream: whether the endpoint is asked to stream: ``"auto"`` where somebody takes tokens or a
            first-token or idle timeout is set, ``"always"`` (a server that generates a plain request
            to its end after the client has gone stops at once when it streams), ``"never"``.
        capabilities: names of what the model can do, for a model that DSPy does not know: any of
            ``"function_calling"``, ``"reasoning"``, ``"response_schema"``.
        endpoint: a Service that answers in place of the network, such as the simulated LM.
        first_token_timeout: seconds from the request to the first word, thought or tool call of the reply.
        idle_timeout: seconds of silence within a reply; what only keeps the connection open is silence too.
        kwargs: everything else that ``dspy.LM`` takes.

    Raises what ``dspy.LM`` raises. Cancelling a call closes the connection to the LM at once.
    """

    # Slots, not entries of __dict__: an adopted LM shares its __dict__ with the user's own.
    __slots__ = ("_kept", "live")
    _kept: tuple[Any, Service]
    live: LMOptions
    """The options that this LM was given beside a ``dspy.LM``'s own keywords."""

    def __init__(
        self,
        model: str,
        *args: Any,
        stream: Streaming = "auto",
        capabilities: tuple[str, ...] | list[str] | set[str] | None = None,
        endpoint: Service | None = None,
        first_token_timeout: float | None = None,
        idle_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.live = LMOptions(stream, named_capabilities(capabilities), endpoint, first_token_timeout, idle_timeout)
        super().__init__(model, *args, **kwargs)

    @property
    def kept_service(self) -> tuple[Any, Service] | None:
        """The service of the last call, with what it was made of, as the engine has kept it; ``None`` before one."""
        return getattr(self, "_kept", None)

    @kept_service.setter
    def kept_service(self, kept: tuple[Any, Service]) -> None:
        self._kept = kept

    @property
    def layers(self) -> list[Layer]:
        """The layers around each call's endpoint under the default runtime, the outermost first; to be looked at."""
        return lm_layers(self, default_runtime())

    def service(self) -> Service:
        """Return this LM as a Service, for layers that ask more than one: ``Fallback(other_lm.service())``."""
        return LMService(self)

    # The seam. DSPy reads ``_engine_spec``: a string costs it 440 µs per asynchronous call.

    @property
    def _engine_spec(self) -> Any:
        spec = self.__dict__.get("_engine_spec", "auto")
        return EngineMark(self) if isinstance(spec, str) and spec == "auto" else spec

    @_engine_spec.setter
    def _engine_spec(self, value: Any) -> None:
        self.__dict__["_engine_spec"] = "auto" if isinstance(value, EngineMark) else value

    @property
    def _async_engine_spec(self) -> Any:
        spec = self.__dict__.get("_async_engine_spec")
        return AsyncEngineMark(self) if spec is None and isinstance(self._engine_spec, EngineMark) else spec

    @_async_engine_spec.setter
    def _async_engine_spec(self, value: Any) -> None:
        self.__dict__["_async_engine_spec"] = None if isinstance(value, AsyncEngineMark) else value

    def as_dspy(self) -> dspy.LM:
        """Return a plain ``dspy.LM`` that shares this one's state, settings and history."""
        plain = object.__new__(dspy.LM)
        plain.__dict__ = self.__dict__
        return plain

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        if overrides().get("send_stream") is not None:
            with self._send_stream_call(messages) as plain:
                return plain(prompt, messages=messages, **kwargs)
        if not is_wrapped("__call__"):
            return self._call(prompt, messages=messages, **kwargs)
        with handed_over(self._handed(messages, kwargs)):
            return super().__call__(prompt, messages=messages, **kwargs)

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        if overrides().get("send_stream") is not None:
            with self._send_stream_call(messages) as plain:
                return await plain.acall(prompt, messages=messages, **kwargs)
        if not is_wrapped("acall"):
            return await self._acall(prompt, messages=messages, **kwargs)
        with handed_over(self._handed(messages, kwargs)):
            return await super().acall(prompt, messages=messages, **kwargs)

    # The same as DSPy's own two methods do, without the thread that its acall takes.

    @with_callbacks
    def _call(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        call = self._prepare(prompt, messages, kwargs, asynchronous=False)
        run = current_run()
        origin, stream = origin_of(run, messages)
        result = bridge.wait_for(lambda: engine.answer(self, call, run, origin, stream), run)
        return finalize(self, call.theirs, result)

    @with_callbacks
    async def _acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        call = self._prepare(prompt, messages, kwargs, asynchronous=True)
        run = current_run()
        origin, stream = origin_of(run, messages)
        return finalize(self, call.theirs, await engine.answer(self, call, run, origin, stream))

    def _prepare(self, prompt: Any, messages: Any, kwargs: dict[str, Any], *, asynchronous: bool) -> LMCall:
        client = _without_client_settings(kwargs)
        call = prepare(self, prompt, messages, kwargs, asynchronous=asynchronous)
        warn_openai_messages(self, messages)
        return lm_call_of(self, call, client)

    def _handed(self, messages: Any, kwargs: dict[str, Any]) -> HandedOver:
        """Return this call as it is handed over to DSPy's own method; takes the client settings out of ``kwargs``."""
        client = _without_client_settings(kwargs)
        run = current_run()
        origin, stream = origin_of(run, messages)

        async def answer(call: PreparedCall) -> CallResult:
            return await engine.answer(self, lm_call_of(self, call, client), run, origin, stream)

        return HandedOver(self, lambda call: bridge.wait_for(lambda: answer(call), run), answer)

    @contextmanager
    def _send_stream_call(self, messages: Any) -> Iterator[dspy.LM]:
        """The user's own code set ``send_stream`` (``dspy.streamify`` around our LM): DSPy's path, as ever."""
        plain = self.as_dspy()
        adapter_call = _adapter_call.get()
        if adapter_call is None or adapter_call[0] is not self or adapter_call[1] is not messages:
            yield plain
            return
        with adapter_message_call(plain, messages):
            yield plain

    def copy(self, **kwargs: Any) -> LM:
        """Return a copy with updated parameters, as ``dspy.LM.copy`` does; our own options go with it too."""
        own = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
        if "capabilities" in own:
            own["capabilities"] = named_capabilities(own["capabilities"])
        plain = self.as_dspy().copy(**kwargs)
        copied = object.__new__(type(self))
        copied.__dict__ = plain.__dict__  # type: ignore[misc]
        copied.live = replace(self.live, **own)
        return copied

    def dump_state(self) -> dict[str, Any]:
        """Return the state of the ``dspy.LM`` that this is; keys and our own options stay out of it."""
        state: dict[str, Any] = self.as_dspy().dump_state()
        state[LM_CLASS_STATE_KEY] = _DSPY_LM
        return state

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        # An endpoint is a live thing, with loops and sockets; it does not travel.
        state["_live_options"] = replace(self.live, endpoint=None)
        return state

    def __setstate__(self, state: Any) -> None:
        state = dict(state)
        self.live = state.pop("_live_options", _DEFAULTS)
        super().__setstate__(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> LM:
        import copy

        copied = object.__new__(type(self))
        memo[id(self)] = copied
        # The providers and pools are shared, as in a shallow copy of a dspy.LM; an endpoint is a live thing too.
        dspy.LM.__setstate__(copied, copy.deepcopy(super().__getstate__(), memo))
        copied.live = self.live
        return copied


def adopt(lm: Any) -> Any:
    """Return our LM for a plain ``dspy.LM``, sharing its state; anything else as it is.

    The user's object is not touched: kwargs, history and callbacks are the very same ones. One that asks by our engine
    objects gets their settings of the client too, and its history and callbacks are the same.
    """
    if type(lm) is not dspy.LM or "forward" in vars(lm) or "aforward" in vars(lm):
        return lm
    ours = object.__new__(LM)
    by_ours = engine_lm_of(lm)
    if by_ours is None:
        ours.__dict__ = lm.__dict__  # type: ignore[misc]
        ours.live = _DEFAULTS
        return ours
    client = {key: value for key, value in by_ours.kwargs.items() if key in CLIENT_KEYS}
    state = {"_engine_spec": "auto", "_async_engine_spec": None, "kwargs": {**client, **lm.kwargs}}
    ours.__dict__.update({**lm.__dict__, **state})
    ours.live = by_ours.live
    return ours


def configured(lm: Any, config: Mapping[str, Any]) -> Any:
    """Return ``lm`` with a call's own options; one that has them already, or a copy of such a one, as it is.

    The copy shares the history: the user finds the call where it would have been.
    """
    if not config or (isinstance(lm, LM) and lm.live.configured):
        return lm
    copied = lm.copy(**config)
    copied.history = lm.history
    if isinstance(copied, LM):
        copied.live = replace(copied.live, configured=True)
    return copied


def _without_client_settings(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take out of ``kwargs`` what DSPy refuses beside an engine object; they are ours to carry out."""
    return {k: kwargs.pop(k) for k in CLIENT_KEYS & kwargs.keys()} if kwargs.keys() & CLIENT_KEYS else {}
