"""So many requests, and so many tokens, per minute."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, RateLimited
from dspy_live.core.events import Completion, Result, Usage
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._now import loop_now
from dspy_live.layers._usages import Usages
from dspy_live.sansio.checks import not_negative, positive
from dspy_live.sansio.limits.window import Entry, Window

MINUTE = 60.0
"""Seconds of the window."""
_ROUNDING = 1e-6
"""Seconds by which a wait may exceed ``max_wait``: a clock that counts from the machine's start rounds that much."""


@dataclass(frozen=True, slots=True)
class RateStatistics:
    """Calls that were let through, that had to wait first, and that were refused; the seconds waited in all; requests
    and tokens that could be spent at once now (below 0: overdrawn), ``None`` where there is no such limit."""

    admitted: int
    delayed: int
    refused: int
    waited_seconds: float
    requests_left: float | None
    tokens_left: float | None


class Rate:
    """Lets no more than so many requests and tokens out in any 60 seconds, wherever those begin.

    A call waits its turn, in the order of coming, for up to ``max_wait`` seconds; one that would wait longer, or past
    its deadline, is refused at once with :class:`RateLimited` that says how long it would have been. The tokens
    that a call really used (its ``Usage`` events, or an LM's completion) are set against the estimate when it ends:
    fewer make room at once, more count from then on. So tokens exceed the limit by no more than the estimates were
    too low. Cancelled while it waits, a call has taken nothing.

    The arithmetic is a sliding window log, :class:`~dspy_live.sansio.limits.window.Window`, which names its sources.

    Args:
        requests_per_minute: or ``None``. Below 1, one request in ``60 / requests_per_minute`` seconds.
        tokens_per_minute: prompt and completion together, or ``None``.
        max_wait: seconds; 60 by default.
        estimate: tokens that a call will use, before it is known; 1000 by default. A call that is estimated at more
            than ``tokens_per_minute`` is refused, for it would never fit.
        burst: the share of a minute's allowance that may go out at once after a pause, above 0 and up to 1. At 1, the
            default, a call waits only when the allowance of the last minute is used up; below it the calls after the
            burst are spaced evenly. No value lets more than the limit out in 60 seconds.
    """

    kind: ClassVar[str] = "rate"

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_wait: float = 60.0,
        estimate: Callable[[Call], float] = lambda call: 1000,
        burst: float = 1.0,
    ) -> None:
        if requests_per_minute is None and tokens_per_minute is None:
            raise ConfigurationError("Rate needs at least one of requests_per_minute and tokens_per_minute")
        if not 0 < burst <= 1:
            raise ConfigurationError(f"burst must be a share above 0 and at most 1; got {burst!r}")
        self.max_wait = not_negative("max_wait", max_wait, "seconds")
        self._estimate = estimate
        self._requests = _window("requests_per_minute", requests_per_minute, burst)
        self._tokens = _window("tokens_per_minute", tokens_per_minute, burst)
        self._lock = threading.Lock()
        self._admitted = self._delayed = self._refused = 0
        self._waited = 0.0

    def __repr__(self) -> str:
        limits = {"requests_per_minute": self._requests, "tokens_per_minute": self._tokens}
        return f"Rate({', '.join(f'{name}={w.rate * MINUTE:g}' for name, w in limits.items() if w is not None)})"

    def __call__(self, service: Service) -> Service:
        async def spaced(call: Call, sink: Sink) -> Result:
            if self._tokens is None:
                await self._turn(call, 0.0)
                return await service(call, sink)
            estimate = not_negative("the estimate", self._estimate(call), "tokens")
            taken = await self._turn(call, estimate)
            usages: list[Usage] = []
            result = None
            try:
                result = await service(call, Usages(sink, usages.append))
                return result
            finally:
                used = _used(usages, result)
                if used is not None:  # else the estimate stands, for something was probably used
                    self._settle(taken, estimate, used)

        return spaced

    def statistics(self) -> RateStatistics:
        with self._lock:
            now = loop_now()
            return RateStatistics(
                self._admitted,
                self._delayed,
                self._refused,
                self._waited,
                self._requests.left(now) if self._requests is not None else None,
                self._tokens.left(now) if self._tokens is not None else None,
            )

    async def _turn(self, call: Call, tokens: float) -> list[Taken]:
        """Wait for the call's turn, or raise :class:`RateLimited`. Cancelled meanwhile, it has taken nothing."""
        wait, taken = self._reserve(call, tokens)
        try:
            while wait > 0:
                await asyncio.sleep(wait)
                wait = self._late(taken)
        except BaseException:
            self._give_back(taken)
            raise
        self._admitted += 1
        return taken

    def _reserve(self, call: Call, tokens: float) -> tuple[float, list[Taken]]:
        wanted = [(w, n) for w, n in ((self._requests, 1.0), (self._tokens, tokens)) if w is not None]
        with self._lock:
            now = loop_now()
            times = [window.plan(now, amount) for window, amount in wanted]
            when = max(times)
            wait = when - now
            late = call.deadline is not None and wait > 0 and when >= call.deadline
            if wait > self.max_wait + _ROUNDING or late:
                self._refused += 1
                raise self._limited(wait, tokens, self._requests is None or when > times[0])
            self._delayed += wait > 0
            self._waited += wait
            return wait, [Taken(window, window.take(when, amount), amount) for window, amount in wanted]

    def _late(self, taken: list[Taken]) -> float:
        with self._lock:
            now = loop_now()
            wait = max(window.late(now, entry) for window, entry, _ in taken)
            self._waited += wait
            return wait

    def _give_back(self, taken: list[Taken]) -> None:
        with self._lock:
            for window, entry, amount in taken:
                window.cancel(loop_now(), entry, amount)

    def _settle(self, taken: list[Taken], estimate: float, used: float) -> None:
        window, entry, _ = taken[-1]
        with self._lock:
            if used > estimate:
                window.add(loop_now(), used - estimate)
            else:
                window.give_back(loop_now(), entry, estimate - used)

    def _limited(self, wait: float, tokens: float, by_tokens: bool) -> RateLimited:
        window, unit = (self._tokens, "tokens") if by_tokens else (self._requests, "requests")
        assert window is not None
        limit = window.rate * MINUTE
        if math.isinf(wait):
            return RateLimited(
                f"this call is estimated at {tokens:g} tokens, and {limit:g} tokens per minute are the limit, so that "
                "it would never fit; make its prompt shorter, lower the estimate, or raise the limit",
                retry_after=window.seconds,
                limit=limit,
                unit=unit,
                local=True,
            )
        return RateLimited(
            f"the limit of {limit:g} {unit} per minute is reached: this call would wait {wait:.1f} s "
            f"and may wait {self.max_wait:g} s, within its deadline; try again later, or raise the limit",
            retry_after=wait,
            limit=limit,
            unit=unit,
            local=True,
        )


class Taken(NamedTuple):
    """What a call has taken of one limit."""

    window: Window
    entry: Entry
    amount: float


def _used(usages: list[Usage], result: Result | None) -> float | None:
    """The tokens that a call has used, ``None`` when neither its events nor an LM's completion report any."""
    if usages:
        return sum(usage.total_tokens for usage in usages if not usage.cached)
    return _reported(result.response) if isinstance(result, Completion) else None


def _reported(response: Any) -> float | None:
    """The tokens of an LM's response: a dict as on the wire, or an object with a ``usage``."""
    usage = _member(response, "usage")
    total = _member(usage, "total_tokens")
    return float(total) if isinstance(total, (int, float)) and not isinstance(total, bool) else None


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _window(name: str, per_minute: float | None, burst: float) -> Window | None:
    if per_minute is None:
        return None
    positive(name, per_minute)
    # One unit must fit: 0.5 per minute are one in 120 s.
    return Window(per_minute, MINUTE, burst) if per_minute >= 1 else Window(1.0, MINUTE / per_minute, burst)
