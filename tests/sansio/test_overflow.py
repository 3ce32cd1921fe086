"""The queues of a channel, each against a model that keeps everything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dspy_live.core.call import Buffer
from dspy_live.core.events import Event, Partial, Reasoning, Restart, Status, TextDelta, Token
from dspy_live.sansio.overflow import CONTROL_BOUND, PARTIAL_BYTES, Blocking, Coalescing, DropOldest, make_queue

texts = st.text(max_size=6)
calls = st.integers(1, 2)
fields = st.sampled_from(["answer", "why"])
spoken = st.one_of(
    st.builds(Token, texts, fields, st.just("p"), calls),
    st.builds(Reasoning, texts, st.just("p"), calls),
    st.builds(TextDelta, texts, calls),
    st.builds(Partial, st.integers(), fields, st.just("p"), calls, st.booleans()),
)
others = st.one_of(st.builds(Status, texts), st.builds(Restart, st.just("p"), calls, st.just("retry")))


def streams(events: list[Event]) -> dict[Any, Any]:
    """What a reader makes of the events: the text of each stream between two restarts, the last partial values."""
    out: dict[Any, Any] = {}
    epoch = 0
    for event in events:
        if isinstance(event, Restart):
            epoch += 1
        elif isinstance(event, Partial):
            out[epoch, Partial, event.lm_call, event.field] = event
        elif isinstance(event, (Token, Reasoning, TextDelta)):
            key = epoch, type(event), event.lm_call, getattr(event, "field", "")
            out[key] = out.get(key, "") + event.text
    return out


def control(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, (Status, Restart))]


class Machine(RuleBasedStateMachine):
    """Put and take at random; what came out, and what is still inside, must tell the same story as what went in."""

    @initialize(
        size=st.integers(1, 4),
        max_bytes=st.integers(1, 12),
        overflow=st.sampled_from(["block", "coalesce", "drop_oldest"]),
    )
    def start(self, size: int, max_bytes: int, overflow: Any) -> None:
        self.queue = make_queue(Buffer(size=size, overflow=overflow, max_bytes=max_bytes))
        self.overflow = overflow
        self.sent: list[Event] = []
        self.got: list[Event] = []

    @rule(event=spoken)
    def put_spoken(self, event: Event) -> None:
        self.sent.append(event)
        assert self.queue.put(event) is not self.queue.full

    @rule(event=spoken)
    def put_from_a_thread(self, event: Event) -> None:
        self.sent.append(event)
        self.queue.put_merging(event)

    @rule(event=others)
    def put_other(self, event: Event) -> None:
        self.sent.append(event)
        self.queue.put(event)

    @precondition(lambda self: len(self.queue))
    @rule()
    def take(self) -> None:
        self.got.append(self.queue.take())

    @rule()
    def take_all(self) -> None:
        self.got.extend(self.queue.take_all())
        assert len(self.queue) == 0
        assert self.queue.tokens == self.queue.control == 0
        assert self.queue.roomy
        assert not self.queue.full

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "queue"):
            return
        queue = self.queue
        assert len(queue) == queue.tokens + queue.control
        assert len(self.got) + len(queue) + queue.dropped + queue.coalesced == len(self.sent)
        if isinstance(queue, Coalescing):
            assert queue.bytes >= 0
        if isinstance(queue, DropOldest):
            assert queue.tokens <= queue.bound

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.got.extend(self.queue.take_all())
        assert control(self.got) == control(self.sent)
        if self.overflow == "drop_oldest":
            # A subsequence, in order, that ends with the newest.
            rest = iter(self.sent)
            assert all(any(event is other for other in rest) for event in self.got)
        else:
            assert streams(self.got) == streams(self.sent)
            assert self.queue.dropped == 0


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestQueues = Machine.TestCase


def token(text: str = "x", last: bool = False) -> Token:
    return Token(text, "answer", "p", 1, last)


@pytest.mark.parametrize("overflow", ["block", "coalesce", "drop_oldest"])
def test_statuses_alone_fill_it_when_they_are_very_many(overflow: Any) -> None:
    queue = make_queue(Buffer(size=1, overflow=overflow))
    assert all(queue.put(Status("s")) for _ in range(CONTROL_BOUND - 1))
    assert not queue.put(Status("s"))
    assert queue.full
    for _ in range(CONTROL_BOUND // 2 - 1):
        queue.take()
    assert not queue.roomy
    queue.take()
    assert queue.roomy


def test_memory_is_bounded_while_a_hundred_megabytes_go_through_drop_oldest() -> None:
    queue = DropOldest(Buffer(size=10, overflow="drop_oldest"))
    for _ in range(10_000):
        queue.put(token("x" * 10))
    assert len(queue) == 10
    assert queue.dropped == 9_990


def test_merging_is_linear() -> None:
    """A megabyte in one-character tokens is joined once, not once for each token."""
    queue = Coalescing(Buffer(size=1, overflow="coalesce", max_bytes=1 << 30))
    for _ in range(100_000):
        queue.put(token("x"))
    assert len(queue) == 2
    assert queue.bytes == 100_000
    assert [len(event.text) for event in queue.take_all()] == [1, 99_999]


def test_bytes_are_those_of_utf8() -> None:
    queue = Coalescing(Buffer(size=1, overflow="coalesce"))
    for text, size in (("ab", 2), ("é", 2), ("🎉", 4), ("\ud83c", 3)):
        queue.put(token(text))
        assert queue.bytes == size
        queue.take()
        assert queue.bytes == 0
    queue.put(token())
    for n in range(5):
        queue.put(Partial([n], "items", "p", 1))
    assert queue.bytes == 1 + PARTIAL_BYTES


def test_a_last_token_survives_merging_and_dropping() -> None:
    for queue in (Coalescing(Buffer(size=1)), DropOldest(Buffer(size=1))):
        for event in (token("a"), token("b"), token("", last=True)):
            queue.put(event)
        assert queue.take_all()[-1].last


def test_blocking_keeps_tokens_apart_when_the_sender_goes_on() -> None:
    queue = Blocking(Buffer(size=2))
    for n in range(5):
        queue.put(token(str(n)))
    assert len(queue) == 5
