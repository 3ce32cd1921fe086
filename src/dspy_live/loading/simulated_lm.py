"""Make the simulated LM in the process: the one that a user asks for, and the one where no other is configured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM
    from dspy_live.simulator.endpoint import SimulatedEndpoint

_MODEL = "openai/simulated"
DEFAULT_PACE = "ttft=0.2 tps=80 jitter=0.2"
"""As a quick hosted model answers: seconds before the first token, tokens per second, jitter."""
_NAMES = {"ttft": "ttft", "tps": "tokens_per_second", "jitter": "jitter", "length": "length", "seed": "seed"}


def sim_lm(
    *,
    ttft: float = 0.0,
    tokens_per_second: float | None = None,
    jitter: float = 0.0,
    length: int | None = None,
    seed: int = 0,
) -> LM:
    """Return an LM that answers in this process, without a key, a network or a socket.

    It answers in the form that the adapter asks for, streams, and is cancelled like any LM; its text is made up.
    Its model is named ``openai/simulated``, in ``inspect_history``, in usage and in logs, and costs nothing. A server
    started by ``dspy-live serve`` says ``X-Simulated: 1`` with each reply. Replies are not cached, so that each takes
    the time that it would take.

    Args:
        ttft: seconds before the first token.
        tokens_per_second: the pace after it; ``None``, the default, does not wait.
        jitter: the share by which each wait varies, 0 to 1.
        length: tokens of a reply's last text field; ``None`` is some whole sentences, by the seed.
        seed: another seed gives other answers; the same seed gives the same answer to the same request.

    Raises ``ValueError`` for a pace that can't be. Cancelling a call ends it at once.
    """
    from dspy_live.simulator import InProcessLM
    from dspy_live.simulator.endpoint import SimulatedEndpoint

    pace = InProcessLM(seed, ttft=ttft, tokens_per_second=tokens_per_second, jitter=jitter, length=length)
    return _over(SimulatedEndpoint(pace))


def simulated_lm() -> Any:
    """Make the stand-in: the LM of a command where no other LM is configured.

    ``DSPY_LIVE_SIM`` changes its pace, such as ``"ttft=0 tps=none length=20 seed=3"``. A program that is loaded later
    does not take it for an LM that it has configured itself.
    """
    from dspy_live.loading.stand_in import StandIn
    from dspy_live.simulator import InProcessLM

    settings = {**_read(DEFAULT_PACE), **_read(os.environ.get("DSPY_LIVE_SIM", ""))}
    try:
        return _over(StandIn(InProcessLM(**settings)))
    except ValueError as exc:
        raise ConfigurationError(f"DSPY_LIVE_SIM: {exc}") from exc


def _over(endpoint: SimulatedEndpoint) -> LM:
    # Here, and not above: the simulator takes 50 ms to import, and a command that asks a real LM has no use for it.
    from dspy_live.programs.lm.lm import LM
    from dspy_live.runtime.runtime import default_runtime

    default_runtime().account.prices.set({_MODEL: {"input": 0.0, "output": 0.0}})
    return LM(_MODEL, endpoint=endpoint, capabilities=("function_calling", "response_schema"), cache=False)


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
