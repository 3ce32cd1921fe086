"""The turns of a rate limit that all processes share."""

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
from dspy_live.runtime.stores.line import Ask, Exchange, line_to
from dspy_live.runtime.stores.rate_script import WINDOW

logger = logging.getLogger("dspy_live.rate")

SLICE = 0.25
"""Seconds within which what went out is kept as one, dated by its latest."""
_AGAIN = 1.0
"""Seconds after which a call that waits for its turn asks again at the latest: somebody may have given back."""
_KEPT = 86_400
"""Seconds after which the server forgets a limit that nobody uses."""

_ROUNDING = 1e-6

Pair = tuple[float, float]
"""Requests and tokens."""


class Going:
    """A call that goes out: ``gone`` until the server is told, ``told`` then, in that slice; or ``alone``."""

    __slots__ = ("estimate", "slice", "state")

    def __init__(self, estimate: float, state: Literal["gone", "told", "alone"]) -> None:
        self.estimate = estimate
        self.state = state
        self.slice = b""


class Turn(NamedTuple):
    """The answer to a call that waits: it may go, it would wait so many seconds, or it decides alone."""

    kind: Literal["go", "refused", "alone"]
    wait: float = 0.0


class _Waiting:
    __slots__ = ("ask", "known", "since", "tokens", "until")

    def __init__(self, tokens: float, patience: float) -> None:
        self.ask: Ask[Turn] = Ask()
        self.tokens = tokens
        self.since = time.monotonic()
        self.until = self.since + patience
        self.known = False


class SharedWindow:
    """A party of the line that lets calls out in the order of coming.

    Args:
        url: the server's address.
        name: the same for all that share the limit.
        limits: of requests and tokens in ``seconds``; ``None`` for no limit.
        capacities: what may go out at once, where that is less.
        seconds: the length of the window.
        on_outage: what to do while the server does not answer.
        timeout: seconds to wait for the server.
    """

    def __init__(
        self,
        url: str,
        name: str,
        limits: tuple[float | None, float | None],
        capacities: tuple[float | None, float | None],
        seconds: float,
        on_outage: OnOutage,
        timeout: float,
    ) -> None:
        self.limits, self.capacities, self.seconds = limits, capacities, seconds
        self.outage = Outage(name, on_outage, logger)
        self._key = f"dspy-live:rate:{name}"
        self._line = line_to(url, timeout)
        self._begin()
        at_fork(in_child=self._begin)

    def _begin(self) -> None:
        """Know nothing and hold nothing, as at the start and in a forked process."""
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._sent: list[_Waiting] = []
        self._life, self._heard_at = "", 0.0
        self._gone: Pair = (0.0, 0.0)
        self._heard: Pair = (0.0, 0.0)
        self._telling: Pair = (0.0, 0.0)
        self._held: Pair = (0.0, 0.0)
        self._untold: list[Going] = []
        self._told: list[Going] = []
        self._backs: list[tuple[Going, float]] = []
        # What went out, with its time here: of this the server was told, of that not, for it was away.
        self._history: deque[tuple[float, Pair]] = deque()
        self._backlog: deque[tuple[float, Pair]] = deque()
        self._sent_backlog = 0
        self._forgotten = False
        self.used: Pair | None = None

    async def turn(self, tokens: float, patience: float) -> Going | Turn:
        """Wait for the turn of a call that is estimated at so many tokens: it goes out now, or is refused.

        Refused is one that would wait longer than ``patience`` seconds. Cancelled meanwhile, it has taken nothing.
        """
        if self.outage.down:
            return self._alone(tokens)
        waiting = _Waiting(tokens, patience)
        with self._lock:
            self._waiting.append(waiting)
        self._line.soon(self)
        try:
            answer = await waiting.ask.wait(self._line)
        except BaseException:
            answer = waiting.ask.withdraw()
            if answer is not None and answer.kind == "go":
                with self._lock:
                    self._held = _plus(self._held, (-1, -tokens))
            self._line.soon(self)
            raise
        if answer is None or answer.kind == "alone":
            return self._alone(tokens)
        if answer.kind == "refused":
            return answer
        going = Going(tokens, "gone")
        with self._lock:
            self._held = _plus(self._held, (-1, -tokens))
            self._gone = _plus(self._gone, (1, tokens))
            self._untold.append(going)
        self._line.soon(self, shared.TELL)
        return going

    def took(self, tokens: float) -> None:
        """Count tokens that were used, and that no call had a turn for."""
        with self._lock:
            if self.outage.down:
                self._backlog.append((time.monotonic(), (0, tokens)))
            else:
                self._gone = _plus(self._gone, (0, tokens))
        self._line.soon(self, shared.TELL)

    def settle(self, going: Going, used: float) -> None:
        """The call has used so many tokens, and not as many as it was estimated at."""
        more = used - going.estimate
        if not more or self.limits[1] is None:
            return
        with self._lock:
            if going.state == "alone":
                self._backlog.append((time.monotonic(), (0, max(0.0, more))))
            elif more > 0 or going.state == "gone":
                self._gone = _plus(self._gone, (0, more))
            else:
                self._backs.append((going, -more))
        self._line.soon(self, shared.TELL)

    def _alone(self, tokens: float) -> Going | Turn:
        if self.outage.refuses:
            self._line.soon(self)
            return Turn("alone")
        with self._lock:
            self._backlog.append((time.monotonic(), (1, tokens)))
        self._line.soon(self, shared.TELL)
        return Going(tokens, "alone")

    # A party of the line, in its thread.

    def prepare(self, holder: str) -> Exchange:
        """Tell what went out of this process, and ask for the turns of those that wait."""
        now = time.monotonic()
        with self._lock:
            self._sent = [waiting for waiting in self._waiting if waiting.ask.open]
            self._waiting.clear()
            self._telling, self._told, self._untold = self._gone, [*self._told, *self._untold], []
            for going in self._told:
                going.state = "told"
            backs = [(going.slice, amount) for going, amount in self._backs if going.slice]
            self._backs = [(going, amount) for going, amount in self._backs if not going.slice]
            for entries in (self._history, self._backlog):
                while entries and entries[0][0] + self.seconds <= now:
                    entries.popleft()
            self._sent_backlog = len(self._backlog)
            ages = [*self._backlog, *(self._history if self._forgotten else ())]
            known = sum(waiting.known for waiting in self._sent)
            life = self._life if now - self._heard_at < _KEPT / 2 else ""
            waited = now - self._sent[0].since if self._sent else 0.0
            args: list[Any] = [
                "", holder, life, uuid4().hex, shared.LEASE, shared.SETTLE, _KEPT, self.seconds, SLICE,
                *("" if n is None else repr(float(n)) for n in (*self.limits, *self.capacities)),
                *(repr(float(n)) for n in (*self._heard, *self._telling, *self._held)),
                repr(waited), 1.5 * _AGAIN, len(backs), len(ages), len(self._sent), known,
            ]  # fmt: skip
            args += [part for number, amount in backs for part in (number, repr(amount))]
            args += [repr(float(part)) for at, amounts in ages for part in (now - at, *amounts)]
            args += [repr(float(waiting.tokens)) for waiting in self._sent]
        return Exchange(WINDOW, self._key, args)

    def answered(self, answer: list[Any]) -> None:
        """Let those go that got their turn, and refuse those that would wait too long."""
        now = time.monotonic()
        life, number, granted, again, *used, texts = answer
        with self._lock:
            self._learn(life.decode(), number, now)
            self.used = float(used[0]), float(used[1])
            unused = self._hand_out(granted, float(again), [float(text) for text in texts.split()], now)
            waits, lives = bool(self._waiting), bool(self._history) or self._held[0] > 0
            tells = bool(self._untold or self._backs)
        self.outage.ends()
        if self._forgotten or unused:
            self._line.soon(self)
        if waits:
            self._line.soon(self, min(max(float(again), 0.005), _AGAIN))
        if tells:
            self._line.soon(self, shared.TELL)
        if lives:
            self._line.soon(self, shared.BEAT)

    def _learn(self, life: str, number: bytes, now: float) -> None:
        fresh = _plus(self._telling, (-self._heard[0], -self._heard[1]))
        self._forgotten = bool(self._life) and life != self._life
        self._life, self._heard, self._heard_at = life, self._telling, now
        for going in self._told:
            going.slice = number
        self._told = []
        for _ in range(self._sent_backlog):
            self._history.append(self._backlog.popleft())
        if any(fresh):
            self._remember(now, fresh)

    def _remember(self, now: float, fresh: Pair) -> None:
        last = self._history[-1] if self._history else None
        if last is not None and now - last[0] < SLICE:
            self._history[-1] = (now, _plus(last[1], fresh))
        else:
            self._history.append((now, fresh))

    def _hand_out(self, granted: int, again: float, waits: list[float], now: float) -> bool:
        """Return whether a turn is left that nobody wants any more."""
        unused = False
        for waiting in self._sent[:granted]:
            if waiting.ask.answer(Turn("go")):
                self._held = _plus(self._held, (1, waiting.tokens))
            else:
                unused = True
        left = []
        for waiting, wait in zip(self._sent[granted:], waits, strict=True):
            if now + (0.0 if waiting.known else wait) > waiting.until + _ROUNDING:
                waiting.ask.answer(Turn("refused", max(wait, again)))
            else:
                waiting.known = True
                left.append(waiting)
        # Those that asked meanwhile stand behind those that had asked before.
        self._waiting.extendleft(reversed(left))
        self._sent = []
        return unused

    def failed(self, error: Exception) -> None:
        """Let those who wait decide alone, and try again."""
        self.outage.begins(error)
        with self._lock:
            waiting = [*self._sent, *self._waiting]
            self._sent = []
            self._waiting.clear()
        for one in waiting:
            one.ask.answer(Turn("alone"))
        if waiting or self._backlog or self._history or self._held[0] > 0:
            self._line.soon(self, shared.REST)


def _plus(one: Pair, other: Pair) -> Pair:
    return one[0] + other[0], one[1] + other[1]
