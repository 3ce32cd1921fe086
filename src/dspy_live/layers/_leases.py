"""Slots that all processes share: each is a lease, which ends when its process dies."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from dspy_live.layers._outage import OnOutage, Outage
from dspy_live.runtime.forks import at_fork
from dspy_live.runtime.stores import line as shared
from dspy_live.runtime.stores.lease_script import LEASES
from dspy_live.runtime.stores.line import Ask, Exchange, line_to

logger = logging.getLogger("dspy_live.limit")

AGAIN = 0.02
"""Seconds after which a process that waits for a slot asks again."""
_KEEPS_PLACE = 0.5
"""Seconds for which one that has not asked again keeps its place before the others."""
_TOLD_AFTER = 0.005
_KEPT = 86_400
"""Seconds after which the server forgets a limit that nobody uses."""

Answer = Literal["granted", "alone", "full"]


class _Waiting(NamedTuple):
    ask: Ask[Answer]
    since: float
    patient: bool = True


class Leases:
    """A party of the line that hands out slots, the first to come first. An :meth:`acquire` wants one :meth:`release`.

    Args:
        url: the server's address.
        name: the same for all that share the slots.
        limit: how many there are.
        on_outage: what to do while the server does not answer; see :class:`~dspy_live.layers.shared_limit.SharedLimit`.
        timeout: seconds to wait for the server.
    """

    def __init__(self, url: str, name: str, limit: int, on_outage: OnOutage, timeout: float) -> None:
        self.limit = limit
        self.outage = Outage(name, on_outage, logger)
        self.elsewhere = 0
        self._key = f"dspy-live:limit:{name}"
        self._line = line_to(url, timeout)
        self._begin()
        at_fork(in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._sent: list[_Waiting] = []
        self._life, self._heard = "", 0.0
        self.held = 0

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return len(self._waiting) + len(self._sent)

    async def acquire(self) -> bool:
        """Wait for a slot. False when the server does not answer and nothing may pass without it: there is none then.

        Cancelled meanwhile, it has none.
        """
        return await self._acquire(patient=True) == "granted"

    async def acquire_now(self) -> Literal["granted", "full", "unreachable"]:
        """Take a slot where one is free; else none, and no place among those who wait."""
        return await self._acquire(patient=False)

    async def _acquire(self, *, patient: bool) -> Literal["granted", "full", "unreachable"]:
        if self.outage.down:
            return self._alone()
        ask: Ask[Answer] = Ask()
        with self._lock:
            self._waiting.append(_Waiting(ask, time.monotonic(), patient))
        self._line.soon(self)
        try:
            answer = await ask.wait(self._line)
        except BaseException:
            if ask.withdraw() == "granted":
                self.release()
            else:
                self._line.soon(self)  # nobody keeps a place for it any more
            raise
        return self._alone() if answer is None or answer == "alone" else answer

    def release(self) -> None:
        """Give a slot back; the server hears of it at once."""
        with self._lock:
            self.held -= 1
        self._line.soon(self, _TOLD_AFTER)

    def _alone(self) -> Literal["granted", "unreachable"]:
        if self.outage.refuses:
            self._line.soon(self)
            return "unreachable"
        with self._lock:
            self.held += 1
        self._line.soon(self, shared.TELL)
        return "granted"

    def prepare(self, holder: str) -> Exchange:
        """Tell how many slots this process holds, and ask for those that it waits for."""
        now = time.monotonic()
        with self._lock:
            self._sent = [waiting for waiting in self._waiting if waiting.ask.open]
            self._waiting.clear()
            waited = now - self._sent[0].since if self._sent else 0.0
            life = self._life if now - self._heard < _KEPT / 2 else ""
            args = [holder, life, uuid4().hex, shared.LEASE, shared.SETTLE, _KEPT, self.limit, self.held]
            patient = sum(waiting.patient for waiting in self._sent)
            return Exchange(LEASES, self._key, [*args, len(self._sent), repr(waited), _KEEPS_PLACE, patient])

    def answered(self, answer: list[Any]) -> None:
        """Hand out the slots that came."""
        life, wait, granted, elsewhere = answer
        with self._lock:
            self._life, self._heard, self.elsewhere = life.decode(), time.monotonic(), elsewhere
            left, sent = granted, deque(self._sent)
            while sent and left:
                if sent.popleft().ask.answer("granted"):
                    left -= 1
                    self.held += 1
            self._sent = []
            for waiting in sent:
                if not waiting.patient:
                    waiting.ask.answer("full")
            self._waiting.extendleft(reversed([waiting for waiting in sent if waiting.patient]))
            waits, holds = bool(self._waiting), bool(self.held)
        self.outage.ends()
        if left:
            self._line.soon(self)
        elif waits:
            self._line.soon(self, max(AGAIN, float(wait)))
        elif holds:
            self._line.soon(self, shared.BEAT)

    def failed(self, error: Exception) -> None:
        """Let those who wait decide alone, and try again."""
        self.outage.begins(error)
        with self._lock:
            waiting = [*self._sent, *self._waiting]
            self._sent = []
            self._waiting.clear()
        for one in waiting:
            one.ask.answer("alone")
        if waiting or self.held:
            self._line.soon(self, shared.REST)
