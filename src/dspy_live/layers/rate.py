"""So many requests, and so many tokens, per minute."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, RateLimited
from dspy_live.core.events import Completion, Result, Usage
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.layers._now import loop_now
from dspy_live.layers._usages import Usages
from dspy_live.sansio.checks import not_negative, positive
from dspy_live.sansio.limits.bucket import Bucket


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
    """Spaces calls so that no more than so many requests and tokens go out per minute.

    A call waits its turn, in the order of coming, for up to ``max_wait`` seconds; one that would wait longer, or past
    its deadline, is refused at once with :class:`RateLimited` that says how long it would have been. The tokens
    that a call really used (its ``Usage`` events, or an LM's completion) are set against the estimate when it ends.

    Args:
        requests_per_minute: or ``None``.
        tokens_per_minute: prompt and completion together, or ``None``.
        max_wait: seconds.
        estimate: tokens that a call will use, before it is known; 1000 by default.
        burst: the share of a minute's allowance that may go out at once after a pause, above 0 and up to 1.
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
        self._requests = _bucket("requests_per_minute", requests_per_minute, burst)
        self._tokens = _bucket("tokens_per_minute", tokens_per_minute, burst)
        self._lock = threading.Lock()
        self._admitted = self._delayed = self._refused = 0
        self._waited = 0.0

    def __repr__(self) -> str:
        limits = {"requests_per_minute": self._requests, "tokens_per_minute": self._tokens}
        return f"Rate({', '.join(f'{name}={b.rate * 60:g}' for name, b in limits.items() if b is not None)})"

    def __call__(self, service: Service) -> Service:
        async def spaced(call: Call, sink: Sink) -> Result:
            if self._tokens is None:
                await self._turn(call, 0.0)
                return await service(call, sink)
            estimate = not_negative("the estimate", self._estimate(call), "tokens")
            await self._turn(call, estimate)
            usages: list[Usage] = []
            result = None
            try:
                result = await service(call, Usages(sink, usages.append))
                return result
            finally:
                used = _used(usages, result)
                if used is not None:  # else the estimate stands, for something was probably used
                    self._give_back(0, estimate - used)

        return spaced

    def statistics(self) -> RateStatistics:
        with self._lock:
            now = loop_now()
            return RateStatistics(
                self._admitted,
                self._delayed,
                self._refused,
                self._waited,
                self._requests.level(now) if self._requests is not None else None,
                self._tokens.level(now) if self._tokens is not None else None,
            )

    async def _turn(self, call: Call, tokens: float) -> None:
        """Wait for the call's turn, or raise :class:`RateLimited`. Cancelled meanwhile, it has taken nothing."""
        wait = self._reserve(call, tokens)
        if wait > 0:
            try:
                await asyncio.sleep(wait)
            except BaseException:
                self._give_back(1, tokens)
                raise
        self._admitted += 1

    def _reserve(self, call: Call, tokens: float) -> float:
        with self._lock:
            now = loop_now()
            waits = [b.wait(now, n) for b, n in ((self._requests, 1), (self._tokens, tokens)) if b is not None]
            wait = max(waits)
            if wait > self.max_wait or (call.deadline is not None and wait > 0 and now + wait >= call.deadline):
                self._refused += 1
                raise self._limited(wait, self._requests is None or wait > waits[0])
            self._take(now, 1, tokens)
            self._delayed += wait > 0
            self._waited += wait
            return wait

    def _take(self, now: float, requests: float, tokens: float) -> None:
        if self._requests is not None:
            self._requests.take(now, requests)
        if self._tokens is not None:
            self._tokens.take(now, tokens)

    def _give_back(self, requests: float, tokens: float) -> None:
        with self._lock:
            now = loop_now()
            if self._requests is not None:
                self._requests.give_back(now, requests)
            if self._tokens is not None:
                self._tokens.give_back(now, tokens)

    def _limited(self, wait: float, by_tokens: bool) -> RateLimited:
        bucket, unit = (self._tokens, "tokens") if by_tokens else (self._requests, "requests")
        assert bucket is not None
        return RateLimited(
            f"the limit of {bucket.rate * 60:g} {unit} per minute is reached: this call would wait {wait:.1f} s "
            f"and may wait {self.max_wait:g} s, within its deadline; try again later, or raise the limit",
            retry_after=wait,
            limit=bucket.rate * 60,
            unit=unit,
            local=True,
        )


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


def _bucket(name: str, per_minute: float | None, burst: float) -> Bucket | None:
    if per_minute is None:
        return None
    positive(name, per_minute)
    return Bucket(per_minute / 60, max(1.0, per_minute * burst), 0.0)
