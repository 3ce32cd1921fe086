"""What a supervisor does next, as arithmetic: no process, no clock, no signal, so that it is tested without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from dspy_live.sansio.limits.backoff import Backoff

START_SECONDS = 30.0
"""Seconds that a worker has from its start until it serves."""
STABLE_SECONDS = 60.0
"""Seconds after which the end of a worker counts as its first one: it is replaced at once."""
_BACKOFF = Backoff(base=0.5, cap=30.0)


class Do(Enum):
    """What is to be done with a worker."""

    START = "start"
    RETIRE = "retire"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do; ``replaces`` is the worker whose socket a started one goes on with."""

    do: Do
    worker: int
    replaces: int | None = None


class State(Enum):
    """Where a worker stands."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(slots=True)
class Worker:
    """One process; ``since`` is when it came to its state."""

    number: int
    slot: int
    since: float
    replaces: int | None = None
    state: State = State.STARTING
    killed: bool = False


@dataclass(slots=True)
class _Slot:
    """A place of one worker: how often in a row it has ended early, and when the next one may start."""

    failures: int = 0
    again: float = 0.0


@dataclass
class Plan:
    """The workers of a server, and what is to be done with them.

    Args:
        size: how many serve at a time.
        leave_seconds: how long a leaving worker may take.
        start_seconds: how long a starting one may take.
    """

    size: int
    leave_seconds: float
    start_seconds: float = START_SECONDS
    workers: dict[int, Worker] = field(default_factory=dict)
    stopping: bool = False
    ever_served: bool = False
    _made: int = 0
    _slots: list[_Slot] = field(default_factory=list)
    _to_renew: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slots = [_Slot() for _ in range(self.size)]

    @property
    def over(self) -> bool:
        """True when a stopped server has no worker left."""
        return self.stopping and not self.workers

    @property
    def hopeless(self) -> bool:
        """True when each worker has failed at its start, and none has ever served."""
        return not self.ever_served and all(slot.failures for slot in self._slots)

    @property
    def serving(self) -> int:
        """How many workers serve now."""
        return sum(worker.state is State.SERVING for worker in self.workers.values())

    @property
    def rolling(self) -> bool:
        """True while workers are being replaced one after the other."""
        return bool(self._to_renew)

    def next_actions(self, now: float) -> list[Action]:
        """Return what is to be done now; it counts as done."""
        return [*self._kills(now), *self._starts(now), *self._renewals(now)]

    def next_time(self) -> float | None:
        """Return when there may be something to do although nothing has happened, ``None`` for never."""
        times = [end for worker in self.workers.values() if (end := self._end_of(worker)) is not None]
        if not self.stopping:
            used = {worker.slot for worker in self.workers.values() if worker.state is not State.LEAVING}
            times += [slot.again for number, slot in enumerate(self._slots) if number not in used and self._may(slot)]
        return min(times, default=None)

    def served(self, number: int, now: float) -> None:
        """A worker accepts connections."""
        worker = self.workers[number]
        if worker.state is not State.STARTING:
            return
        self.ever_served = True
        worker.state, worker.since = State.SERVING, now

    def ended(self, number: int, now: float) -> Worker:
        """A worker's process has ended. Returns what it was."""
        worker = self.workers.pop(number)
        if self.stopping or worker.state is State.LEAVING:
            return worker
        slot, starting = self._slots[worker.slot], worker.state is State.STARTING
        if starting and worker.replaces is not None:
            self._to_renew.clear()  # what does not start is no replacement: the old ones go on
            return worker
        if not starting and now - worker.since >= STABLE_SECONDS:
            slot.failures = 0
        slot.failures += 1
        first = slot.failures == 1 and not starting
        slot.again = now if first else now + _BACKOFF.delay(slot.failures - 1, 1.0)
        return worker

    def renew(self) -> None:
        """Replace all workers, one after the other; those that have just been replaced, or are just being, too."""
        if not self.stopping:
            self._to_renew = [*self._to_renew[:1], *range(self.size)]

    def stop(self, now: float) -> list[int]:
        """Begin the end. Returns the workers to be told; one that is still starting is killed.

        Called again, it returns those that have been told before: they are to hurry.
        """
        whom = State.LEAVING if self.stopping else State.SERVING
        told = [one.number for one in self.workers.values() if one.state is whom]
        self.stopping = True
        self._to_renew.clear()
        for worker in self.workers.values():
            if worker.state is State.STARTING:
                worker.since = now - self.start_seconds
            elif worker.state is State.SERVING:
                worker.state, worker.since = State.LEAVING, now
        return told

    def _may(self, slot: _Slot) -> bool:
        """True where a worker may start; before any has served, each has one try."""
        return self.ever_served or not slot.failures

    def _end_of(self, worker: Worker) -> float | None:
        if worker.killed:
            return None
        if worker.state is State.STARTING:
            return worker.since + self.start_seconds
        return worker.since + self.leave_seconds if worker.state is State.LEAVING else None

    def _kills(self, now: float) -> Iterator[Action]:
        for worker in self.workers.values():
            end = self._end_of(worker)
            if end is not None and now >= end:
                worker.killed = True
                yield Action(Do.KILL, worker.number)

    def _starts(self, now: float) -> Iterator[Action]:
        if self.stopping:
            return
        used = {one.slot for one in self.workers.values() if one.state is not State.LEAVING}
        for number, slot in enumerate(self._slots):
            if number not in used and now >= slot.again and self._may(slot):
                yield self._start(number, now, None)

    def _renewals(self, now: float) -> Iterator[Action]:
        """Start the next replacement, and let the old worker go when it serves."""
        while self._to_renew:
            of_slot = [one for one in self.workers.values() if one.slot == self._to_renew[0]]
            new = next((one for one in of_slot if one.replaces is not None and one.state is not State.LEAVING), None)
            old = next((one for one in of_slot if one.state is State.SERVING and one is not new), None)
            if new is None and old is not None:
                yield self._start(old.slot, now, old.number)
                return
            if any(one.state is State.STARTING for one in of_slot):
                return
            if new is not None:
                new.replaces = None
                self._slots[new.slot].failures = 0
                if old is not None:
                    old.state, old.since = State.LEAVING, now
                    yield Action(Do.RETIRE, old.number)
            self._to_renew.pop(0)

    def _start(self, slot: int, now: float, replaces: int | None) -> Action:
        self._made += 1
        self.workers[self._made] = Worker(self._made, slot, now, replaces)
        return Action(Do.START, self._made, replaces)
