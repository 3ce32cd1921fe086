"""The limits of one key over all servers that share a Redis or Valkey: runs and tokens per minute, and runs at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dspy_live.core.errors import Overloaded
from dspy_live.core.usage import LMRecord
from dspy_live.layers._leases import Leases
from dspy_live.layers._outage import OnOutage
from dspy_live.layers._shared_window import Going, SharedWindow
from dspy_live.server.keys import minute
from dspy_live.server.keys.key import Key

_RETRY_SLOT = 1.0
"""Seconds after which one may try again that found no slot."""


@dataclass(frozen=True)
class SharedPlace:
    """Where the limits of keys are kept.

    Args:
        url: a Redis or Valkey.
        name: the beginning of the names of limits; servers that share them give the same.
        on_outage: ``"alone"`` lets each server go on with the whole limit while the store does not answer;
            ``"refuse"`` refuses the key's runs.
        timeout: seconds to wait for the store.
    """

    url: str
    name: str = "key"
    on_outage: OnOutage = "alone"
    timeout: float = 1.0


class Refusal(NamedTuple):
    """A limit that has no room: its name, its value, the seconds until there may be some, and why."""

    unit: str
    limit: float
    wait: float
    why: str


class SharedRun:
    """What one run has taken of its key's limits. A meter of the run: it counts tokens as LMs answer."""

    __slots__ = ("_going", "_limits")

    def __init__(self, limits: SharedKeyLimits, going: Going | None) -> None:
        self._limits, self._going = limits, going

    def check(self) -> None:
        """Refuse nothing: a run that has begun goes on."""

    def record(self, record: LMRecord) -> None:
        """Count one exchange; what came from the cache is free."""
        if self._limits.tokens is not None and record.cache != "hit" and record.usage.total_tokens:
            self._limits.tokens.took(record.usage.total_tokens)

    def leave(self) -> None:
        """Give the slot back, and the token that the run had to find room for."""
        if self._limits.slots is not None:
            self._limits.slots.release()
        if self._going is not None and self._limits.tokens is not None:
            self._limits.tokens.settle(self._going, 0.0)


class SharedKeyLimits:
    """As a key's limits in one process, for all that share a store: a run is refused at once or let in.

    Args:
        place: where they are kept.
        key: the key.
        before: the same key's limits until now. What runs hold of them counts on.
    """

    def __init__(self, place: SharedPlace, key: Key, before: SharedKeyLimits | None = None) -> None:
        self._key = key
        self.slots: Leases | None = _slots(place, key, before.slots if before is not None else None)
        self.requests: SharedWindow | None = _window(
            place, key, "requests", before.requests if before is not None else None
        )
        self.tokens: SharedWindow | None = _window(place, key, "tokens", before.tokens if before is not None else None)

    @staticmethod
    def wanted(key: Key) -> bool:
        """True for a key that has a limit of these kinds."""
        return (key.requests_per_minute, key.tokens_per_minute, key.concurrency) != (None, None, None)

    async def take(self) -> SharedRun | Refusal:
        """Count a run in, or return the limit that refuses it. Cancelled meanwhile, it holds nothing.

        Raises :class:`Overloaded` where the store does not answer and nothing may pass without it.
        """
        if self.slots is not None:
            answer = await self.slots.acquire_now()
            if answer == "unreachable":
                raise _unreachable(self._key)
            if answer == "full":
                return Refusal("runs at once", self.slots.limit, _RETRY_SLOT, "as many are under way")
        run = SharedRun(self, None)
        try:
            refusal = await self._take_turns(run)
        except BaseException:
            run.leave()
            raise
        if refusal is not None:
            run.leave()
            return refusal
        return run

    async def _take_turns(self, run: SharedRun) -> Refusal | None:
        # Requests are the last: a run that is refused has used none.
        for window, limit, unit in (
            (self.tokens, self._key.tokens_per_minute, "tokens per minute"),
            (self.requests, self._key.requests_per_minute, "requests per minute"),
        ):
            if window is None or limit is None:
                continue
            turn = await window.turn(1.0 if window is self.tokens else 0.0, 0.0)
            if isinstance(turn, Going):
                run._going = turn if window is self.tokens else run._going
            elif turn.kind == "refused":
                return Refusal(unit, limit, turn.wait, "they are used up")
            else:
                raise _unreachable(self._key)
        return None

    def left(self) -> tuple[float, int, float] | None:
        """Return the limit that a client has to keep to, what is left of it as last heard, and in how many seconds
        all of it is there again at the latest; ``None`` where that is not known."""
        for place, window in enumerate((self.requests, self.tokens)):
            if window is not None:
                limit = window.limits[place]
                if window.used is None or window.outage.down or limit is None:
                    return None
                return limit, max(0, math.floor(limit - window.used[place] + 1e-6)), window.seconds
        slots = self.slots
        if slots is None or slots.outage.down:
            return None
        return slots.limit, max(0, slots.limit - slots.held - slots.elsewhere), 1.0


def _slots(place: SharedPlace, key: Key, before: Leases | None) -> Leases | None:
    if key.concurrency is None:
        return None
    if before is None:
        return Leases(place.url, f"{place.name}:{key.name}", key.concurrency, place.on_outage, place.timeout)
    before.limit = key.concurrency
    return before


def _window(
    place: SharedPlace, key: Key, unit: Literal["requests", "tokens"], before: SharedWindow | None
) -> SharedWindow | None:
    limit = key.requests_per_minute if unit == "requests" else key.tokens_per_minute
    if limit is None:
        return None
    # Of less than one in a minute it is one in so many seconds.
    most, seconds = (limit, minute.MINUTE) if limit >= 1 else (1.0, minute.MINUTE / limit)
    limits = (most, None) if unit == "requests" else (None, most)
    if before is not None and before.seconds == seconds:
        before.limits = limits
        return before
    name = f"{place.name}:{key.name}:{unit}"
    return SharedWindow(place.url, name, limits, (None, None), seconds, place.on_outage, place.timeout)


def _unreachable(key: Key) -> Overloaded:
    return Overloaded(
        f"the store of the limits of the key {key.name!r} does not answer, and nothing passes without it; try again "
        "later",
        local=True,
    )
