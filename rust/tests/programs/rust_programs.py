"""Programs that the crate's tests run."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
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
    """Takes half a second to end when it is cancelled."""

    async def aforward(self, question: str) -> dspy.Prediction:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.5)
        return dspy.Prediction(answer="never")


class Busy(dspy.Module):
    """Holds Python for a while, and hands it to no other thread meanwhile."""

    async def aforward(self, question: str) -> dspy.Prediction:
        before = sys.getswitchinterval()
        sys.setswitchinterval(60.0)
        try:
            until = time.monotonic() + float(question)
            while time.monotonic() < until:
                pass
        finally:
            sys.setswitchinterval(before)
        return dspy.Prediction(answer="done")


failing = Failing()
odd = Odd()
blocking = Blocking()
stubborn = Stubborn()
busy = Busy()
predict = dspy.Predict("question -> answer")
typed = dspy.Predict("question -> answer, score: float, tags: list[str]")
