"""So many requests, and so many tokens, per minute, over all processes and machines together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, Overloaded
from dspy_live.layers import rate
from dspy_live.layers._now import loop_now
from dspy_live.layers._outage import OnOutage
from dspy_live.layers._shared_window import Going, SharedWindow
from dspy_live.layers.rate import Rate, RateStatistics, Taken


class SharedRate(Rate):
    """As :class:`~dspy_live.layers.rate.Rate`, for all processes and machines that use the same ``name``.

    No 60 seconds have more, wherever they begin and whichever processes the calls come from: a call counts from its
    turn on, and its 60 seconds begin when the server hears that it has gone out, by the server's clock. A process that
    is woken late is late for itself, and one that dies with a turn has used it. In a process the first to come is the
    first to go; of several processes the one whose first call has waited longest finds room for that one. A call waits
    for one exchange with the server; calls that come together share one.

    While the server does not answer ``on_outage`` decides; it is tried again every second, and told what went out. A
    server that comes back empty lets nothing out for 3 seconds and is told what went out of the processes that live.

    Args:
        url: ``redis://host:port`` and so on, as for :class:`~dspy_live.runtime.stores.redis.RedisStore`.
        name: the limit's name; processes that share it must give the same limits.
        requests_per_minute: at least 1, or ``None``.
        tokens_per_minute: at least 1, prompt and completion together, or ``None``.
        max_wait: seconds.
        estimate: tokens that a call will use, before it is known.
        burst: the share of a minute's allowance that may go out at once after a pause, of all processes together.
        on_outage: ``"alone"``, the default, lets each process go on with the whole limit, and its own last minute in
            it; ``"refuse"`` refuses calls with :class:`~dspy_live.core.errors.Overloaded`.
        timeout: seconds to wait for the server.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` as ``Rate`` does, and without the ``redis`` extra.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_wait: float = 60.0,
        estimate: Callable[[Call], float] = lambda call: 1000,
        burst: float = 1.0,
        on_outage: OnOutage = "alone",
        timeout: float = 1.0,
    ) -> None:
        super().__init__(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_wait=max_wait,
            estimate=estimate,
            burst=burst,
        )
        limits = (requests_per_minute, tokens_per_minute)
        if any(limit is not None and limit < 1 for limit in limits):
            raise ConfigurationError(f"a limit that is shared is at least 1 per minute; got {limits!r}")
        at_once = [None if n is None or burst == 1 else max(1.0, n * burst) for n in limits]
        self.name = name
        self._shared = SharedWindow(url, name, limits, (at_once[0], at_once[1]), rate.MINUTE, on_outage, timeout)

    def __repr__(self) -> str:
        return f"Shared{super().__repr__()}"

    def statistics(self) -> RateStatistics:
        """Return this process's counts, and the requests and tokens that all had left when the server last told."""
        own, used = super().statistics(), self._shared.used
        if used is None or self._shared.outage.down:
            return own
        left = [None if limit is None else limit - n for limit, n in zip(self._shared.limits, used, strict=True)]
        return replace(own, requests_left=left[0], tokens_left=left[1])

    async def _turn(self, call: Call, tokens: float) -> list[Taken]:
        began = loop_now()
        taken = await super()._turn(call, tokens)
        try:
            going = await self._all_together(call, tokens, began)
        except BaseException:
            self._admitted -= 1
            self._give_back(taken)
            raise
        with self._lock:
            for window, entry, _ in taken:
                window.late(loop_now(), entry)
        return _SharedTurn(taken, going)

    async def _all_together(self, call: Call, tokens: float, began: float) -> Going:
        now = loop_now()
        patience = self.max_wait - (now - began)
        if call.deadline is not None:
            patience = min(patience, call.deadline - now)
        asked = time.monotonic()
        answer = await self._shared.turn(tokens, max(0.0, patience))
        waited = time.monotonic() - asked
        if isinstance(answer, Going):
            self._waited += waited
            return answer
        self._refused += 1
        if answer.kind == "refused":
            by_tokens = self._requests is None or (self._tokens is not None and self._more_tokens_are_used())
            raise self._limited(answer.wait, tokens, by_tokens)
        raise Overloaded(
            f"the server of the limit {self.name!r} does not answer, and nothing passes without it; try again "
            "later, or let each process count alone with on_outage='alone'",
            local=True,
        )

    def _more_tokens_are_used(self) -> bool:
        used, (requests, tokens) = self._shared.used, self._shared.limits
        return used is not None and bool(requests and tokens and used[1] / tokens > used[0] / requests)

    def _settle(self, taken: list[Taken], estimate: float, used: float) -> None:
        super()._settle(taken, estimate, used)
        if isinstance(taken, _SharedTurn):
            self._shared.settle(taken.going, used)


class _SharedTurn(list[Taken]):
    """What a call has taken in its own process, and its turn among all."""

    def __init__(self, taken: list[Taken], going: Going) -> None:
        super().__init__(taken)
        self.going = going
