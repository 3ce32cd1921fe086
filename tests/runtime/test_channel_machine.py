"""The channel under random sequences of everything that its two ends can do."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dspy_live.core.call import Buffer
from dspy_live.core.events import Event, Restart, Status, Token
from dspy_live.runtime.channel.channel import Channel
from dspy_live.testing import VirtualLoop

events = st.one_of(
    st.builds(Token, st.text("ab", max_size=3), st.sampled_from(["answer", "why"]), st.just("p"), st.integers(1, 2)),
    st.builds(Status, st.text("st", max_size=2)),
    st.builds(Restart, st.just("p"), st.integers(1, 2), st.just("retry")),
)


def story(seen: list[Event]) -> list[Any]:
    """Statuses and restarts in order, and between two restarts the text of each field."""
    epochs: list[dict[Any, str]] = [{}]
    for event in seen:
        if isinstance(event, Restart):
            epochs.append({})
        elif isinstance(event, Token):
            key = event.lm_call, event.field
            epochs[-1][key] = epochs[-1].get(key, "") + event.text
    return [*epochs, [event for event in seen if isinstance(event, Status)]]


class Machine(RuleBasedStateMachine):
    @initialize(
        size=st.integers(1, 3),
        more=st.sampled_from([None, 0, 5]),
        overflow=st.sampled_from(["block", "coalesce"]),
        max_bytes=st.integers(1, 8),
    )
    def start(self, size: int, more: int | None, overflow: Any, max_bytes: int) -> None:
        self.loop = VirtualLoop(patience=0.01)
        buffer = Buffer(size, overflow, None if more is None else size + more, max_bytes)
        self.closed = self.gone = False
        self.channel = self.loop.run_until_complete(self.make(buffer))
        self.sent: list[Event] = []
        self.got: list[Event] = []
        self.reading: asyncio.Task[Any] | None = None
        self.waiting: list[asyncio.Task[None]] = []

    async def make(self, buffer: Buffer) -> Channel:
        return Channel(buffer, lambda: self.closed)

    @rule(ticks=st.integers(1, 3))
    def tick(self, ticks: int) -> None:
        for _ in range(ticks):
            self.loop.run_until_complete(asyncio.sleep(0))
        self.look()

    @rule(seconds=st.sampled_from([0.001, 0.05, 1.0]))
    def wait(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.look()

    @precondition(lambda self: not self.closed)
    @rule(event=events)
    def push(self, event: Event) -> None:
        room = self.channel.push(event)
        if self.gone:
            assert room
        else:
            assert room or self.channel.full
            self.sent.append(event)

    @precondition(lambda self: self.reading is None)
    @rule(many=st.booleans())
    def read(self, many: bool) -> None:
        async def one() -> list[Event]:
            event = await self.channel.receive()
            return [] if event is None else [event]

        self.reading = self.loop.create_task(self.channel.receive_many() if many else one())

    @precondition(lambda self: self.reading is not None)
    @rule()
    def cancel(self) -> None:
        assert self.reading is not None
        self.reading.cancel()

    @rule()
    def want_room(self) -> None:
        self.waiting.append(self.loop.create_task(self.channel.room()))

    # Late, or most sequences would be over before anything has happened.
    @precondition(lambda self: len(self.sent) > 12)
    @rule()
    def end(self) -> None:
        self.closed = True
        self.channel.wake()

    @precondition(lambda self: len(self.sent) > 12)
    @rule()
    def leave(self) -> None:
        self.channel.close()
        self.gone = True

    def look(self) -> None:
        """Take note of what the reader has."""
        if self.reading is not None and self.reading.done():
            task, self.reading = self.reading, None
            if task.cancelled():
                return
            self.got.extend(task.result())
            assert task.result() or self.closed or self.gone

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "channel"):
            return
        statistics = self.channel.statistics()
        assert statistics.dropped == 0
        assert statistics.size <= statistics.bound <= (self.channel._buffer.max_size or statistics.size)
        assert not (self.gone and self.channel.full)

    def teardown(self) -> None:
        if not hasattr(self, "channel"):
            return
        try:
            self.finish()
        finally:
            self.loop.close()

    def finish(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            self.tick(3)
            assert self.reading is None, "a reader that is cancelled hangs"
        self.end()
        if not self.gone:
            for _ in range(2):
                self.read(many=True)
                self.wait(1.0)
                assert self.reading is None, "a reader hangs after the end"
            assert story(self.got) == story(self.sent), "lost or out of order"
        self.tick(3)
        assert all(task.done() for task in self.waiting), "a source that waits for room hangs"
        statistics = self.channel.statistics()
        assert statistics.waiting == 0


Machine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestChannel = Machine.TestCase
