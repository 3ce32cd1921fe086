"""The program that ``make serve`` serves: it answers a question, says how sure it is, and what to ask next."""

from __future__ import annotations

import dspy


class Explain(dspy.Signature):
    """Answer the question for a curious reader, in a few plain sentences."""

    question: str = dspy.InputField(desc="anything you would like to know")
    answer: str = dspy.OutputField(desc="two to four sentences")
    confidence: float = dspy.OutputField(desc="how sure you are, from 0 to 1")
    follow_up: list[str] = dspy.OutputField(desc="up to three questions to ask next")


class Demo(dspy.Module):
    """Explains anything, and says how sure it is."""

    def __init__(self) -> None:
        super().__init__()
        self.explain = dspy.ChainOfThought(Explain)

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.explain.acall(question=question)

    def forward(self, question: str) -> dspy.Prediction:
        return self.explain(question=question)


program = Demo()
