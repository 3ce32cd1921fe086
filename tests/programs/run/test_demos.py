"""A program's demos are examples of it."""

from __future__ import annotations

import dspy

from dspy_live.programs.run.demos import MOST_CHARACTERS, MOST_EXAMPLES
from dspy_live.programs.run.schema import schema_of


class Rag(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.query = dspy.Predict("question -> search_query")
        self.answer = dspy.ChainOfThought("context, question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        raise AssertionError("it is only described here")


def example(number: int) -> dspy.Example:
    return dspy.Example(question=f"Why {number}?", answer=f"Because {number}.").with_inputs("question")


def test_the_demos_of_a_predictor_are_its_examples() -> None:
    program = dspy.Predict("question -> answer")
    assert schema_of(program).examples == ()
    program.demos = [example(1), {"question": "Why 2?", "answer": "Because 2.", "augmented": True}]
    assert [dict(each) for each in schema_of(program).examples] == [
        {"inputs": {"question": f"Why {n}?"}, "outputs": {"answer": f"Because {n}."}} for n in (1, 2)
    ]


def test_demos_of_inner_predictors_count_where_they_have_what_the_program_takes() -> None:
    program = Rag()
    program.query.demos = [dspy.Example(question="Why?", search_query="why")]
    program.answer.predict.demos = [
        dspy.Example(question="Why?", context="c", reasoning="r", answer="a"),
        dspy.Example(context="no question", answer="b"),
    ]
    assert [dict(each) for each in schema_of(program).examples] == [
        {"inputs": {"question": "Why?"}, "outputs": {}},
        {"inputs": {"question": "Why?"}, "outputs": {"reasoning": "r", "answer": "a"}},
    ]


def test_examples_are_few_and_small_and_json() -> None:
    program = dspy.Predict("question -> answer")
    program.demos = [
        dspy.Example(question="x" * MOST_CHARACTERS, answer="too long for a page"),
        dspy.Example(question=object(), answer="no JSON form"),
        example(0),
        *(example(n) for n in range(20)),
    ]
    asked = [each["inputs"]["question"] for each in schema_of(program).examples]
    assert asked == [f"Why {n}?" for n in range(MOST_EXAMPLES)]
