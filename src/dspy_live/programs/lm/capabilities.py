"""What a model can do, as DSPy asks it of an LM's engine: looked up once for each model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspy_live.programs.internals import Capabilities, _capabilities, load_model_metadata
from dspy_live.programs.lm.seam.engine_objects import AsyncEngine, Engine

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM


def named_capabilities(capabilities: Any) -> Capabilities | None:
    if capabilities is None:
        return None
    known = {"function_calling", "reasoning", "response_schema"}
    if isinstance(capabilities, str) or not set(capabilities) <= known:
        raise ValueError(f"capabilities must be some of {sorted(known)}; got {capabilities!r}")
    has = set(capabilities)
    params = {"temperature", "max_tokens", "top_p", "stream", "stop", "seed", "response_format", "logprobs"}
    if "function_calling" in has:
        params |= {"tools", "tool_choice", "parallel_tool_calls"}
    if "reasoning" in has:
        params.add("reasoning_effort")
    return Capabilities("function_calling" in has, "reasoning" in has, "response_schema" in has, frozenset(params))


_known: dict[tuple[Any, ...], Capabilities] = {}


class EngineMark:
    """Stands in ``_engine_spec`` and tells the model's capabilities, looked up once per model."""

    __slots__ = ("_lm",)

    def __init__(self, lm: LM) -> None:
        self._lm = lm

    @property
    def capabilities(self) -> Capabilities:
        """All of them."""
        lm = self._lm
        if lm.live.capabilities is not None:
            return lm.live.capabilities
        key = (lm.model, lm.model_type, lm._providers, lm.kwargs.get("custom_llm_provider"))
        found = _known.get(key)
        if found is None:
            load_model_metadata()
            found = _known[key] = _capabilities(lm.as_dspy())
        return found

    @property
    def supports_function_calling(self) -> bool:
        return bool(self.capabilities.function_calling)

    @property
    def supports_reasoning(self) -> bool:
        return bool(self.capabilities.reasoning)

    @property
    def supports_response_schema(self) -> bool:
        return bool(self.capabilities.response_schema)

    @property
    def supported_params(self) -> frozenset[str]:
        return frozenset(self.capabilities.params)

    def complete(self, request: Any) -> Any:
        """Answer one typed request, for ``LM.forward``."""
        return Engine(self._lm).complete(request)


class AsyncEngineMark:
    """The same for ``LM.aforward``."""

    __slots__ = ("_lm",)

    def __init__(self, lm: LM) -> None:
        self._lm = lm

    async def complete(self, request: Any) -> Any:
        """Answer one typed request, for ``LM.aforward``."""
        return await AsyncEngine(self._lm).complete(request)
