"""Make the simulated LM, which answers where no other LM is configured."""

from __future__ import annotations

import os
from typing import Any

from dspy_live.core.errors import ConfigurationError

_MODEL = "openai/simulated"
DEFAULT_PACE = "ttft=0.2 tps=80 jitter=0.2"
"""As a quick hosted model answers: seconds before the first token, tokens per second, jitter."""
_NAMES = {"ttft": "ttft", "tps": "tokens_per_second", "jitter": "jitter", "length": "length", "seed": "seed"}


def simulated_lm() -> Any:
    """Make the LM that answers in the process.

    ``DSPY_LIVE_SIM`` changes its pace, such as ``"ttft=0 tps=none length=20 seed=3"``. Nothing is
    cached, so that an answer always takes the time that it would take.
    """
    from dspy_live.programs.lm.lm import LM
    from dspy_live.runtime.runtime import default_runtime
    from dspy_live.simulator import InProcessLM
    from dspy_live.simulator.endpoint import SimulatedEndpoint

    settings = {**_read(DEFAULT_PACE), **_read(os.environ.get("DSPY_LIVE_SIM", ""))}
    try:
        simulator = InProcessLM(**settings)
    except ValueError as exc:
        raise ConfigurationError(f"DSPY_LIVE_SIM: {exc}") from exc
    default_runtime().account.prices.set({_MODEL: {"input": 0.0, "output": 0.0}})
    return LM(
        _MODEL,
        endpoint=SimulatedEndpoint(simulator),
        capabilities=("function_calling", "response_schema"),
        cache=False,
    )


def _read(text: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if name not in _NAMES:
            raise ConfigurationError(f"DSPY_LIVE_SIM: no setting {name!r}; there are {', '.join(_NAMES)}")
        try:
            number = None if value == "none" else float(value)
            whole = name in ("length", "seed") and number is not None
            settings[_NAMES[name]] = int(number) if whole and number is not None else number
        except (ValueError, OverflowError):
            raise ConfigurationError(f"DSPY_LIVE_SIM: {name} must be a number or none; got {value!r}") from None
    return settings
