"""A subclass that defines ``forward`` alone is not run through its parent's ``aforward``."""

from __future__ import annotations

import dspy
import pytest

from dspy_live import asyncify
from dspy_live.programs.run.execution_choice import choose_execution


class Parent(dspy.Module):
    """Both forms."""

    def forward(self, q: str) -> dspy.Prediction:
        """Say who answers."""
        return dspy.Prediction(answer="parent")

    async def aforward(self, q: str) -> dspy.Prediction:
        """The same, to await."""
        return self.forward(q)


class Child(Parent):
    """Another program, synchronous only."""

    def forward(self, q: str) -> dspy.Prediction:
        """Say who answers."""
        return dspy.Prediction(answer="child")


class Grandchild(Child):
    """Adds the other form again."""

    async def aforward(self, q: str) -> dspy.Prediction:
        """Say who answers."""
        return dspy.Prediction(answer="grandchild")


@pytest.mark.parametrize(
    ("program", "how"),
    [
        (Parent(), "native"),
        (Child(), "thread"),
        (Grandchild(), "native"),
        (dspy.Predict("q -> a"), "native"),
        (dspy.ReAct("q -> a", tools=[]), "native"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_auto_takes_the_programs_own_form(program: dspy.Module, how: str) -> None:
    assert choose_execution(program, "auto") == how


async def test_the_answer_is_its_own() -> None:
    assert (await asyncify(Child())(q="?")).answer == "child"


def test_code_act_runs_its_code() -> None:
    with pytest.warns(DeprecationWarning, match="CodeAct"):
        program = dspy.CodeAct("q -> a", tools=[])
    assert choose_execution(program, "auto") == "thread"
