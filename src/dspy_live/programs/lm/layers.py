"""The layers between an LM and its endpoint: retries, DSPy's own results, the runtime's layers, the books, timeouts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from dspy.utils.exceptions import LMTimeoutError

from dspy_live.core.call import Call
from dspy_live.core.events import Result
from dspy_live.core.service import Layer, Service
from dspy_live.core.sink import Sink
from dspy_live.layers.retry import Retry
from dspy_live.layers.timeouts import Timeouts
from dspy_live.programs.internals import is_retryable_lm_error
from dspy_live.programs.lm.booking import Booking
from dspy_live.programs.lm.results import DspyResults
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.runtime import Runtime
from dspy_live.sansio.limits.backoff import Backoff

if TYPE_CHECKING:
    from dspy_live.programs.lm.lm import LM

_BACKOFF = Backoff(base=1.0, cap=60.0)


def lm_layers(
    lm: LM, runtime: Runtime, *, looked_up: bool = False, server: str = "", once: bool = False
) -> list[Layer]:
    """Return the layers around one call of ``lm``, the outermost first.

    A ``Retry`` among the runtime's takes the place of the LM's ``num_retries``: retries never multiply.

    Args:
        lm: the LM that is asked.
        runtime: its ``lm_layers`` are a part of the list, its account is where requests are booked.
        looked_up: the call was looked up in the cache and not found there.
        server: host and port of the endpoint, for the books.
        once: whoever asks repeats a failed call itself, so that ``num_retries`` is left to it.
    """
    inner = endpoint_layers(lm, runtime.account, looked_up, server)
    layers: list[Layer] = [DspyResults(lm), *runtime.lm_layers, *inner]
    if lm.num_retries and not once and not any(isinstance(layer, Retry) for layer in runtime.lm_layers):
        layers.insert(0, _retry(lm.num_retries + 1, _BACKOFF))
    return layers


def endpoint_layers(lm: LM, account: Account, looked_up: bool = False, server: str = "") -> list[Layer]:
    """Return the layers that belong to the endpoint of ``lm``, inside of any that the user chooses."""
    live = lm.live
    # The books are outside of the timeouts: a request that was too slow is booked as that, and not as cancelled.
    layers: list[Layer] = [Booking(lm.model, account, looked_up=looked_up, server=server)]
    if live.first_token_timeout is not None or live.idle_timeout is not None:
        layers.append(Timeouts(live.first_token_timeout, live.idle_timeout, error=_timeout_error(lm.model)))
    if live.stream == "never":
        layers.append(never_streamed)
    return layers


def never_streamed(service: Service) -> Service:
    """A layer that asks for the whole reply at once, whatever the layers around it want to hear."""

    async def whole(call: Call, sink: Sink) -> Result:
        return await service(call.but(stream=False) if call.stream else call, sink)

    return whole


@functools.cache  # it has no state but its counts
def _retry(tries: int, backoff: Backoff) -> Retry:
    return Retry(tries, backoff=backoff, budget=None, when=_retryable)


def _retryable(error: BaseException) -> bool:
    return isinstance(error, Exception) and is_retryable_lm_error(error)


def _timeout_error(model: str) -> Callable[[bool, float], Exception]:
    def error(first: bool, limit: float) -> Exception:
        if first:
            said = f"no token came within {limit:g} s of the request; raise first_token_timeout=, or use a faster model"
        else:
            said = f"the reply stopped for longer than {limit:g} s; raise idle_timeout=, or ask again"
        late: Exception = LMTimeoutError(said, model=model)
        return late

    return error
