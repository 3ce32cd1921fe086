"""A program whose processes share one budget: ``DSPY_TEST_BUDGET`` is the address of its Redis."""

from __future__ import annotations

import os

import dspy

from dspy_live.layers import SharedBudget

CALLS = 15
dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


class Spending(dspy.Module):
    """Answers with the LM, at most fifteen times in all processes together."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.budget = SharedBudget(os.environ["DSPY_TEST_BUDGET"], "ray", max_calls=CALLS)

    async def aforward(self, question: str) -> dspy.Prediction:
        with self.budget:
            return await self.ask.acall(question=question)


program = Spending()
