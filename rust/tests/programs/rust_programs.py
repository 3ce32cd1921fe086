"""Programs that the crate's tests run."""

from __future__ import annotations

import asyncio
import mmap
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy

import dspy_live


class Failing(dspy.Module):
    """Raises what a user's bug would."""

    def __init__(self) -> None:
        super().__init__()
        self.signature = dspy.Signature("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        if question == "unprintable":
            raise UnicodeError("half a pair: \ud800")
        raise ValueError(f"no answer to {question!r}")


class Mute(Exception):
    """Has no text, and says so loudly."""

    def __str__(self) -> str:
        raise RuntimeError("this exception can't be shown")

    __repr__ = __str__


class Raising(dspy.Module):
    """Raises what the question names."""

    async def aforward(self, question: str) -> dspy.Prediction:
        if question == "later":  # in a task of its own, where it is the event loop that hears of it
            await asyncio.create_task(self.aforward("exit"))
        raise {
            "surrogate": ValueError("half a pair: \ud800"),
            "nul": ValueError("a\0b\x1b[31m\u202e"),
            "long": ValueError("x" * 5_000_000),
            "empty": ValueError(),
            "mute": Mute(),
            "no text": ValueError({"a": {1, 2}}, b"\xff"),
            "group": ExceptionGroup("two", [ValueError("one"), KeyError("two")]),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
            "cancelled": asyncio.CancelledError("by itself"),
            "stop": StopAsyncIteration("over"),
            "base": BaseException("no Exception"),
        }[question]


class Odd(dspy.Module):
    """Sends and returns what has no form in JSON."""

    async def aforward(self, question: str) -> dspy.Prediction:
        dspy_live.emit("odd", {"text": "a\ud800b", "when": threading.Lock(), (1, 2): {3}})
        number = 10**400 if question == "huge" else float("nan")
        return dspy.Prediction(answer="a\ud800b", number=number)


class Blocking(dspy.Module):
    """Runs in a thread, and hears of a cancellation only when it asks its LM."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        time.sleep(float(question.partition("sleep=")[2] or 0))
        return self.predict(question=question)


class Stubborn(dspy.Module):
    """Ends, when it is cancelled, as soon as there is the file that the question names."""

    async def aforward(self, question: str) -> dspy.Prediction:
        try:
            await asyncio.sleep(3600)
        finally:
            while not Path(question).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
                await asyncio.sleep(0.01)
        return dspy.Prediction(answer="never")


@contextmanager
def memory_of(path: str) -> Iterator[mmap.mmap]:
    """The first byte of a file, to be read and written without a system call."""
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 1) as memory:
        yield memory


class Busy(dspy.Module):
    """Holds Python until the file that the question names begins with a 2, and hands it to no other thread meanwhile.

    It writes a 1 there when it begins, and looks at the file's memory: to read it would hand Python over.
    """

    async def aforward(self, question: str) -> dspy.Prediction:
        before = sys.getswitchinterval()
        sys.setswitchinterval(60.0)
        try:
            with memory_of(question) as told:
                if told[0] == 0:
                    told[0] = 1
                until = time.monotonic() + 60
                while told[0] == 1 and time.monotonic() < until:
                    pass
        finally:
            sys.setswitchinterval(before)
        return dspy.Prediction(answer="done")


failing = Failing()
raising = Raising()
odd = Odd()
blocking = Blocking()
stubborn = Stubborn()
busy = Busy()
predict = dspy.Predict("question -> answer")
typed = dspy.Predict("question -> answer, score: float, tags: list[str]")
