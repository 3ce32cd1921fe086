"""A concurrency limit with a bounded, fair queue, as a state machine: who runs, who waits, who is refused."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, Literal, TypeAlias, TypeVar

from dspy_live.sansio.checks import whole

T = TypeVar("T", bound=Hashable)
Answer: TypeAlias = Literal["go", "wait", "refused"]


class Gate(Generic[T]):
    """Lets ``limit`` tickets in; ``queue`` more wait.

    Fair: keys take turns (round robin), and within a key the first to come is the first to go. One key that sends
    a thousand calls delays another's single call by one turn, not by a thousand.

    The caller keeps its part: a ticket that was let in leaves exactly once, and whoever :meth:`leave`, :meth:`abandon`
    or :meth:`resize` names must be told that it is in.
    """

    __slots__ = ("_limit", "_queues", "_waiting", "active", "queue")

    def __init__(self, limit: int, queue: int) -> None:
        self._limit = whole("limit", limit, "calls")
        self.queue = whole("queue", queue, "calls", least=0)
        self.active = 0
        self._waiting = 0
        # One queue for each key that has somebody waiting; the front one's turn is next.
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def waiting(self) -> int:
        return self._waiting

    def enter(self, ticket: T, key: Hashable = None) -> Answer:
        """Ask for a slot: ``"go"``, ``"wait"`` to be named later, or ``"refused"`` because the queue is full."""
        if self.active < self._limit and not self._waiting:
            self.active += 1
            return "go"
        if self._waiting >= self.queue:
            return "refused"
        self._queues.setdefault(key, deque()).append(ticket)
        self._waiting += 1
        return "wait"

    def leave(self) -> list[T]:
        """Give a slot back. Returns the tickets that are in now: one, or none; several after a rise of the limit."""
        self.active -= 1
        return self._let_in()

    def abandon(self, ticket: T, key: Hashable = None) -> bool:
        """Stop waiting. False when the ticket does not wait: it is in already, and must :meth:`leave`."""
        line = self._queues.get(key)
        if line is None or ticket not in line:
            return False
        line.remove(ticket)
        if not line:
            del self._queues[key]
        self._waiting -= 1
        return True

    def resize(self, limit: int) -> list[T]:
        """Change the limit. Returns the tickets that are in now. Those inside are never thrown out."""
        self._limit = whole("limit", limit, "calls")
        return self._let_in()

    def _let_in(self) -> list[T]:
        admitted: list[T] = []
        while self._waiting and self.active < self._limit:
            key, line = self._queues.popitem(last=False)
            admitted.append(line.popleft())
            if line:
                self._queues[key] = line
            self._waiting -= 1
            self.active += 1
        return admitted
