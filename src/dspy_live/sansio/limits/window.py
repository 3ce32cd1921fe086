"""A sliding window: no more than so many units in any stretch of so many seconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from dspy_live.sansio.checks import positive, share

SLICE = 0.125
"""Seconds within which units are kept as one entry, dated by its latest: 480 entries hold a minute at any rate, and a
limit that is used up loses 0.2 % of its throughput at most."""
_ROUNDING = 1e-7
"""Seconds, and a share of the limit, that sums of floats are off by at most: none is waited for."""


class Entry:
    """Units that went out, or will go out, at ``time``. It belongs to its window."""

    __slots__ = ("amount", "began", "claims", "time")

    def __init__(self, time: float, amount: float) -> None:
        self.began = self.time = time
        self.amount = amount
        self.claims = 1


class Window:
    """Admits amounts in the order of asking, so that any ``seconds`` hold no more than ``limit`` of them.

    This is the sliding window log (Figma's "An alternative approach to rate limiting", 2017, describes it), with
    near entries merged under the later time: a unit may count for ``SLICE`` longer than it must, and never shorter.
    An amount goes out ``seconds`` after the newest entry that must have left to make room for it.

    Below a ``burst`` of 1 the generic cell rate algorithm (ITU-T I.371, annex A) spaces the units besides: ``burst *
    limit`` at once after a pause, and ``limit / seconds`` per second from then on. The window holds all the same.

    Args:
        limit: units, above 0.
        seconds: the length of the window.
        burst: share of the limit that may go out at once, above 0 and up to 1.
        least: units that may go out at once however small the share is.
    """

    __slots__ = ("_capacity", "_due", "_entries", "_total", "limit", "rate", "seconds")

    def __init__(self, limit: float, seconds: float = 60.0, burst: float = 1.0, least: float = 1.0) -> None:
        self.limit = positive("limit", limit, "units")
        self.seconds = positive("seconds", seconds, "seconds")
        self.rate = limit / seconds
        # With the whole limit at once, spacing asks for nothing that the window does not.
        self._capacity = None if share("burst", burst) == 1 else max(least, limit * burst)
        self._due = -math.inf
        self._entries: deque[Entry] = deque()
        self._total = 0.0

    def left(self, now: float) -> float:
        """Units that may still go out now; below 0 where more was used, or has been promised."""
        self._forget(now)
        return self.limit - self._total

    def plan(self, now: float, amount: float) -> float:
        """Return when ``amount`` may go out, from ``now`` on; infinity when it is more than the limit. Takes nothing.

        Any later time does as well.
        """
        if amount > self.limit:
            return math.inf
        self._forget(now)
        when = max(now, self._entries[-1].time) if self._entries else now
        when = max(when, self._room_at(self._total + amount, self._entries))
        if self._capacity is not None:
            spaced = self._due - (self._capacity - amount) / self.rate
            if spaced > when:
                when = math.ceil(spaced / SLICE - _ROUNDING) * SLICE
        return when

    def take(self, when: float, amount: float) -> Entry:
        """Take ``amount`` at a time that :meth:`plan` has allowed. Hand the entry to the other methods."""
        self._due = max(self._due, when) + amount / self.rate
        self._total += amount
        last = self._entries[-1] if self._entries else None
        if last is not None and when - last.began < SLICE:
            last.time = when
            last.amount += amount
            last.claims += 1
            return last
        entry = Entry(when, amount)
        self._entries.append(entry)
        return entry

    def late(self, now: float, entry: Entry) -> float:
        """Date an entry whose time has come to ``now``, and return the seconds that it must still wait.

        A busy loop wakes calls late: what went out later than planned also leaves the window later.
        """
        entry.time = max(entry.time, now)
        for other in reversed(self._entries):
            if other is entry:
                break
            other.time = max(other.time, entry.time)
        self._forget(now)
        before = list(takewhile(lambda other: other is not entry, self._entries))
        wait = self._room_at(sum(other.amount for other in before) + entry.amount, before) - now
        return wait if wait > _ROUNDING else 0.0

    def give_back(self, now: float, entry: Entry, amount: float) -> None:
        """Count ``amount`` of an entry as not used after all. What has left the window meanwhile stays as it was."""
        self._forget(now)
        if entry.time + self.seconds <= now + _ROUNDING:
            return
        entry.amount -= amount
        self._total -= amount
        self._due -= amount / self.rate

    def cancel(self, now: float, entry: Entry, amount: float) -> None:
        """Give back all that a call has taken that never went out; who asks next need not wait behind it."""
        self.give_back(now, entry, amount)
        entry.claims -= 1
        while self._entries and not self._entries[-1].claims:
            self._total -= self._entries.pop().amount

    def add(self, now: float, amount: float) -> None:
        """Count ``amount`` that was used beyond what was taken. It counts from now on; nobody can be called back."""
        self._forget(now)
        self._total += amount
        self._due = max(self._due, now) + amount / self.rate
        place = len(self._entries)
        while place and self._entries[place - 1].time > now:
            place -= 1
        if place and now - self._entries[place - 1].began < SLICE:
            self._entries[place - 1].time = now
            self._entries[place - 1].amount += amount
        else:
            self._entries.insert(place, Entry(now, amount))

    def _room_at(self, held: float, entries: Iterable[Entry]) -> float:
        """When enough of ``entries`` has left for no more than the limit of ``held`` to remain."""
        when = -math.inf
        for entry in entries:
            if held <= self.limit + _ROUNDING * self.limit:
                break
            held -= entry.amount
            when = entry.time + self.seconds
        return when

    def _forget(self, now: float) -> None:
        entries = self._entries
        while entries and entries[0].time + self.seconds <= now + _ROUNDING:
            self._total -= entries.popleft().amount
        if not entries:
            self._total = 0.0  # what rounding has left
