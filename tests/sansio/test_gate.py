"""The concurrency limit as a machine: never too many, nobody forgotten, keys in turn."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dspy_live.core.errors import ConfigurationError
from dspy_live.sansio.limits.gate import Gate


class Machine(RuleBasedStateMachine):
    @initialize(limit=st.integers(1, 3), queue=st.integers(0, 5))
    def start(self, limit: int, queue: int) -> None:
        self.gate: Gate[int] = Gate(limit, queue)
        self.highest = limit
        self.next = 0
        self.inside: set[int] = set()
        self.waiting: dict[int, str] = {}

    @rule(key=st.sampled_from("abc"))
    def enter(self, key: str) -> None:
        ticket, self.next = self.next, self.next + 1
        answer = self.gate.enter(ticket, key)
        if answer == "go":
            assert not self.waiting
            self.inside.add(ticket)
        elif answer == "wait":
            assert len(self.inside) >= self.gate.limit
            self.waiting[ticket] = key
        else:
            assert len(self.waiting) == self.gate.queue

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.inside.remove(data.draw(st.sampled_from(sorted(self.inside))))
        self.admit(self.gate.leave())

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.gate.abandon(ticket, self.waiting.pop(ticket))

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), key=st.sampled_from("abc"))
    def abandon_one_that_is_in(self, data: st.DataObject, key: str) -> None:
        assert not self.gate.abandon(data.draw(st.sampled_from(sorted(self.inside))), key)

    @rule(limit=st.integers(1, 4))
    def resize(self, limit: int) -> None:
        self.highest = max(self.highest, limit)
        self.admit(self.gate.resize(limit))

    def admit(self, tickets: list[int]) -> None:
        for ticket in tickets:
            key = self.waiting.pop(ticket)
            # Within a key the first to come is the first to go.
            assert all(other > ticket for other, its in self.waiting.items() if its == key)
            self.inside.add(ticket)
        if tickets:
            assert len(self.inside) <= self.gate.limit

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "gate"):
            return
        assert self.gate.active == len(self.inside) <= self.highest
        assert self.gate.waiting == len(self.waiting) <= self.gate.queue
        # Nobody waits while there is room.
        assert not self.waiting or len(self.inside) >= self.gate.limit


Machine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestGate = Machine.TestCase


def test_keys_take_turns() -> None:
    gate: Gate[str] = Gate(1, 100)
    gate.enter("first")
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        assert gate.enter(name, name[0]) == "wait"
    order = deque(name for _ in range(6) for name in gate.leave())
    assert list(order) == ["a1", "b1", "c1", "a2", "b2", "a3"]


@pytest.mark.parametrize(("limit", "queue"), [(0, 1), (1, -1), (1.5, 1), (True, 1), (1, float("inf"))])
def test_bad_values_are_refused(limit: int, queue: int) -> None:
    with pytest.raises(ConfigurationError):
        Gate(limit, queue)
