"""Programs of the kinds that users write, for the tests."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy


class Rag(dspy.Module):  # type: ignore[misc]
    """Answers a question, then sums the answer up."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.ChainOfThought("question -> answer")
        self.sum = dspy.Predict("text -> summary")

    def forward(self, question: str) -> Any:
        return self.sum(text=self.answer(question=question).answer)


class NativeRag(Rag):
    async def aforward(self, question: str) -> Any:
        answer = await self.answer.acall(question=question)
        return await self.sum.acall(text=answer.answer)


class Gather(dspy.Module):  # type: ignore[misc]
    """One predictor called several times at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> Any:
        answers = await asyncio.gather(*(self.ask.acall(question=f"{question} {i}") for i in range(3)))
        return dspy.Prediction(answers=[a.answer for a in answers])


class InParallel(dspy.Module):  # type: ignore[misc]
    """dspy.Parallel inside a program: LM calls from threads that are not ours."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        pairs = [(self.ask, dspy.Example(question=f"{question} {i}").with_inputs("question")) for i in range(4)]
        results = dspy.Parallel(num_threads=4)(pairs)
        return dspy.Prediction(answers=[r.answer for r in results])


class Swallows(dspy.Module):  # type: ignore[misc]
    """A program that catches whatever happens and goes on."""

    def __init__(self, base: type[BaseException] = Exception) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.base = base
        self.tries = 0
        self.cleaned = 0

    def forward(self, question: str) -> Any:
        for _ in range(1000):
            self.tries += 1
            try:
                self.ask(question=f"{question} {self.tries}")
            except self.base:
                continue
            finally:
                self.cleaned += 1
        return dspy.Prediction(answer="never")


class Returns(dspy.Module):  # type: ignore[misc]
    """Calls its predictor and returns something else than a Prediction."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.value = value

    def forward(self, question: str) -> Any:
        self.ask(question=question)
        return self.value
