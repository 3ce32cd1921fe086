"""A run under every order of its callbacks, up to a stated bound: it ends once, in one way, and leaves nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest

from dspy_live import LM
from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import Cancelled, DeadlineExceeded
from dspy_live.core.events import Completion, Event, Predicted, Result, Started, TextDelta
from dspy_live.core.service import compose
from dspy_live.core.sink import Sink
from dspy_live.layers import Deadline
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.channel import read
from dspy_live.sansio.lifecycle import Lifecycle
from dspy_live.testing import explore

REPLY = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"


class Endpoint:
    """An LM that answers in two pieces and knows who is inside."""

    def __init__(self) -> None:
        self.active = 0

    async def __call__(self, call: Call, sink: Sink) -> Completion:
        self.active += 1
        try:
            for piece in (REPLY[:22], REPLY[22:]):
                if not sink.push(TextDelta(piece)):
                    await sink.room()
                await asyncio.sleep(0)
            message = {"role": "assistant", "content": REPLY}
            return Completion({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        finally:
            self.active -= 1


class Program(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.ended = 0

    async def aforward(self, question: str) -> Any:
        try:
            return await self.ask.acall(question=question)
        finally:
            self.ended += 1


class World:
    def __init__(self) -> None:
        self.endpoint = Endpoint()
        self.program = Program()
        lm = LM("openai/m", endpoint=self.endpoint, cache=False)
        service = ProgramService(self.program, execution="native", overrides={"lm": lm})
        self.service = compose(service, [Deadline()])
        self.events: list[Event] = []
        self.result: Result | None = None

    async def read(self, call: Call) -> None:
        async with read(self.service, call, Buffer(size=1)) as reader:
            while batch := await reader.receive_many():
                self.events.extend(batch)
            self.result = reader.result

    def over(self) -> None:
        """Whatever happened: the program has ended, the LM is left, the order of events was legal."""
        assert self.endpoint.active == 0
        assert self.program.ended <= 1
        lifecycle = Lifecycle()
        for event in self.events:
            lifecycle.check(event)


def call(**options: Any) -> Call:
    return Call({"question": "?"}, **options)


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What DSPy does once in a process must not make the first schedule differ from the others."""
    asyncio.run(World().read(call()))


def test_an_undisturbed_run() -> None:
    async def scenario() -> None:
        world = World()
        await world.read(call())
        world.over()
        assert isinstance(world.events[0], Started)
        assert isinstance(world.result, Predicted)
        assert world.result.outputs == {"answer": "yes"}
        assert world.program.ended == 1

    print(explore(scenario, delays=3), "schedules")


def test_its_reader_is_cancelled_at_any_moment() -> None:
    async def scenario() -> None:
        world = World()
        reading = asyncio.create_task(world.read(call()))

        async def cancel() -> bool:
            await asyncio.sleep(0)
            return reading.cancel()

        cancelling = asyncio.create_task(cancel())
        await asyncio.wait([reading, cancelling])
        assert reading.cancelled() is cancelling.result()
        world.over()
        if not reading.cancelled():
            assert isinstance(world.result, Predicted)

    print(explore(scenario, delays=3), "schedules")


def test_its_deadline_passes_at_any_moment() -> None:
    async def scenario() -> None:
        world = World()
        reading = asyncio.create_task(world.read(call(deadline=5)))
        await asyncio.wait([reading])
        failure = reading.exception()
        world.over()
        if failure is None:
            assert isinstance(world.result, Predicted)
        else:
            assert isinstance(failure, DeadlineExceeded)
            assert world.result is None

    count = explore(scenario, delays=3)
    print(count, "schedules")


def test_it_is_left_after_its_first_events() -> None:
    async def scenario() -> None:
        world = World()

        async def leave() -> None:
            async with read(world.service, call(), Buffer(size=1)) as reader:
                world.events.extend(await reader.receive_many())

        leaving = asyncio.create_task(leave())
        await asyncio.wait([leaving])
        assert leaving.exception() is None
        world.over()

    print(explore(scenario, delays=3), "schedules")


def test_the_program_fails() -> None:
    async def scenario() -> None:
        world = World()

        async def fail(**_: Any) -> Any:
            await asyncio.sleep(0)
            raise KeyError("a bug")

        world.program.ask.acall = fail
        reading = asyncio.create_task(world.read(call(deadline=5)))
        await asyncio.wait([reading])
        failure = reading.exception()
        assert isinstance(failure, (KeyError, DeadlineExceeded, Cancelled))
        world.over()

    print(explore(scenario, delays=8), "schedules")
