"""What else a program says while its text is spliced comes in its order, and its text is whole."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import dspy
import pytest
from tests.server.splice_lm import SIGNATURE, ScriptedLM, Step, compiled, served_by, splicer, steps_of
from tests.server.support import until
from tests.server.test_splice import pieces, read, reply, stream

import dspy_live
from dspy_live.runtime.http.splice import LoopSplicer
from dspy_live.runtime.http.transport import pool_for_running_loop

TEXT = reply("chat", "Because it is so.", "word " * 80)
TEXTS = pieces(Random(3), TEXT)
ANSWER = ("answer", 1)

Forward = Callable[[Any, str], Awaitable[Any]]


class Program(dspy.Module):
    """Two predictors over one signature, and whatever a test does with them."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.one = dspy.Predict(SIGNATURE)
        self.two = dspy.Predict(SIGNATURE)
        self._forward = forward

    async def aforward(self, question: str) -> Any:
        return await self._forward(self, question)


def spliced_stream(forward: Forward, lm: ScriptedLM, times: int = 1, least: int = 20, **options: Any) -> list[str]:
    """What a client reads of a program's stream, several times; more than ``least`` events must have been spliced."""
    with compiled(True), lm, served_by(Program(forward), lm, **options) as live:
        texts = [stream(live) for _ in range(times)]
        ours = splicer(live)
        assert ours is not None
        assert ours.passed > least
        assert len(ours) == 0
        return texts


def numbers_follow(text: str) -> bool:
    numbers = read(text)[0]
    return numbers == list(range(1, len(numbers) + 1))


def custom_events(text: str) -> list[int]:
    return [data["data"]["i"] for name, *rest in read(text)[2] if name == "custom" for data in rest]


def wait_for_a_splice(ours: LoopSplicer) -> None:
    """Wait for a spliced stream, on a thread that is not the loop's; not for ever, as many words may come as one."""
    with contextlib.suppress(AssertionError):
        until(lambda: len(ours) == 1, seconds=1)


def lm_that_calls(*calls: Callable[[], object]) -> ScriptedLM:
    """An LM that makes each call once, at equal distances among its words."""
    steps = steps_of(TEXTS)
    for number, call in enumerate(reversed(calls)):
        at = len(calls) - number
        steps.insert(25 + at * 15, call)
    return ScriptedLM(steps)


def test_an_event_from_the_loop_or_from_a_thread_comes_between_the_words_before_and_after_it() -> None:
    told: list[Callable[[], None]] = []

    async def forward(program: Program, question: str) -> Any:
        loop, ours = asyncio.get_running_loop(), pool_for_running_loop().splicer()
        context = contextvars.copy_context()
        thread_context = context.copy()
        assert ours is not None

        def turn() -> None:
            """Wait until the loop has done what it was asked to before."""
            done = threading.Event()
            loop.call_soon_threadsafe(done.set)
            assert done.wait(20)

        def on_the_loop() -> None:
            wait_for_a_splice(ours)
            loop.call_soon_threadsafe(lambda: dspy_live.emit("n", {"i": 0}), context=context)
            turn()

        def on_a_thread() -> None:
            wait_for_a_splice(ours)
            thread_context.run(dspy_live.emit, "n", {"i": 1})
            turn()

        told.extend((on_the_loop, on_a_thread))
        return await program.one.acall(question=question)

    lm = lm_that_calls(lambda: told[0](), lambda: told[1](), lambda: told[0](), lambda: told[1]())
    (text,) = spliced_stream(forward, lm)
    assert custom_events(text) == [0, 1, 0, 1]
    assert numbers_follow(text)
    assert read(text)[1][ANSWER] == ("word " * 80).strip()


def test_two_predictors_that_speak_at_once_keep_their_texts_apart() -> None:
    async def forward(program: Program, question: str) -> Any:
        _, result = await asyncio.gather(program.one.acall(question=question), program.two.acall(question=question))
        return result

    for text in spliced_stream(forward, ScriptedLM(steps_of(TEXTS)), times=3, least=0):
        assert numbers_follow(text)
        texts = read(text)[1]
        for lm_call in (1, 2):
            assert texts["answer", lm_call] == ("word " * 80).strip()
            assert texts["reason", lm_call] == "Because it is so."


def test_predictors_in_threads_of_a_parallel_keep_their_texts_apart() -> None:
    class Threads(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = dspy.Predict(SIGNATURE)

        def forward(self, question: str) -> Any:
            pairs = [(self.one, dspy.Example(question=question).with_inputs("question")) for _ in range(3)]
            return dspy.Parallel(num_threads=3, disable_progress_bar=True)(pairs)[0]

    with compiled(True), ScriptedLM(steps_of(TEXTS)) as lm, served_by(Threads(), lm) as live:
        text = stream(live)
    assert numbers_follow(text)
    texts = read(text)[1]
    assert [texts["answer", n] for n in (1, 2, 3)] == [("word " * 80).strip()] * 3


def test_one_predictor_after_another_and_a_tool_between_them() -> None:
    async def forward(program: Program, question: str) -> Any:
        await program.one.acall(question=question)
        dspy_live.emit("n", {"i": 1})
        result = await program.two.acall(question=question)
        dspy_live.emit("n", {"i": 2})
        return result

    (text,) = spliced_stream(forward, ScriptedLM(steps_of(TEXTS)))
    assert custom_events(text) == [1, 2]
    assert numbers_follow(text)
    assert read(text)[1]["answer", 2] == ("word " * 80).strip()


def test_a_reply_that_breaks_off_is_taken_back_and_asked_for_again() -> None:
    async def forward(program: Program, question: str) -> Any:
        return await program.one.acall(question=question)

    lm = ScriptedLM(steps_of(TEXTS))
    lm.first = [[*steps_of(TEXTS)[:60], None]]
    (text,) = spliced_stream(forward, lm, num_retries=2)
    assert text.count("event: restart") == 1
    assert numbers_follow(text)
    after = text.split("event: restart")[1]
    assert read("event: restart" + after)[1][ANSWER] == ("word " * 80).strip()


def test_what_an_error_event_in_the_middle_says_reaches_the_client() -> None:
    async def forward(program: Program, question: str) -> Any:
        return await program.one.acall(question=question)

    failed = b'data: {"error":{"message":"overloaded","type":"server_error","code":500}}\n\n'
    steps: list[Step] = [*steps_of(TEXTS)[:60], b"%x\r\n%b\r\n" % (len(failed), failed)]
    (text,) = spliced_stream(forward, ScriptedLM(steps))
    assert numbers_follow(text)
    assert "event: error" in text


@pytest.mark.parametrize("sync", [False, True])
def test_a_program_in_a_program_and_in_a_thread_of_its_own(sync: bool) -> None:
    def in_thread(program: Program, question: str) -> Any:
        return program.one(question=question)

    async def forward(program: Program, question: str) -> Any:
        if sync:
            return await dspy.asyncify(in_thread)(program, question)
        return await dspy.asyncify(dspy.syncify(program.one))(question=question)

    with compiled(True), ScriptedLM(steps_of(TEXTS)) as lm, served_by(Program(forward), lm) as live:
        text = stream(live)
    assert numbers_follow(text)
    assert read(text)[1][ANSWER] == ("word " * 80).strip()
    assert "event: prediction" in text
