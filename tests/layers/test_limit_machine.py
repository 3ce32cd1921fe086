"""The limiter under random sequences of calls, ends, failures, cancellations, deadlines and new limits."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dspy_live.core.call import Call
from dspy_live.core.errors import DeadlineExceeded, LMFailed, Overloaded
from dspy_live.layers import Deadline, Limit
from dspy_live.testing import ScriptedService, VirtualLoop, collect


class Machine(RuleBasedStateMachine):
    @initialize(limit=st.integers(1, 3), queue=st.integers(0, 3))
    def start(self, limit: int, queue: int) -> None:
        self.loop = VirtualLoop(patience=0.01)
        self.layer = Limit(limit, queue=queue, key=lambda call: call.inputs["key"])
        self.highest = limit
        self.tasks: list[asyncio.Task[Any]] = []
        self.service = self.loop.run_until_complete(self.make())

    async def make(self) -> Any:
        self.work = ScriptedService(hold_exit=True)
        return Deadline()(self.layer(self.work))

    @rule(key=st.sampled_from("ab"), seconds=st.sampled_from([None, 1, 5]))
    def call(self, key: str, seconds: float | None) -> None:
        deadline = self.loop.time() + seconds if seconds is not None else None
        self.tasks.append(self.loop.create_task(collect(self.service, Call({"key": key}, deadline=deadline))))

    @rule()
    def tick(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule(seconds=st.sampled_from([0.5, 2]))
    def wait(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: self.work.attempts)
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: st.DataObject, well: bool) -> None:
        attempt = data.draw(st.sampled_from(self.work.attempts))
        if well:
            attempt.end()
        else:
            attempt.fail(LMFailed("down"))

    @precondition(lambda self: self.work.attempts)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.work.attempts)).may_end.set()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.tasks)).cancel()

    @rule(limit=st.integers(1, 4))
    def resize(self, limit: int) -> None:
        self.highest = max(self.highest, limit)
        self.layer.resize(limit)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "work"):
            return
        statistics = self.layer.statistics()
        assert self.work.active <= statistics.active <= self.highest
        assert self.work.most_active <= self.highest
        assert statistics.waiting <= statistics.queue

    def teardown(self) -> None:
        if not hasattr(self, "work"):
            return
        try:
            self.loop.run_until_complete(self.finish())
        finally:
            self.loop.close()

    async def finish(self) -> None:
        number = 0
        while not all(task.done() for task in self.tasks):
            await asyncio.sleep(1)
            for attempt in self.work.attempts[number:]:
                attempt.end()
                attempt.may_end.set()
            assert self.loop.time() < 10_000, "a call hangs"
        statistics = self.layer.statistics()
        assert (statistics.active, statistics.waiting, self.work.active) == (0, 0, 0)
        outcomes = [task.exception() for task in self.tasks if not task.cancelled()]
        assert all(o is None or isinstance(o, (Overloaded, DeadlineExceeded, LMFailed)) for o in outcomes)
        assert statistics.refused == sum(isinstance(o, Overloaded) for o in outcomes)


Machine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestLimit = Machine.TestCase
