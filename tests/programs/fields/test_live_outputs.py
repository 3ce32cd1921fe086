"""Which predictor speaks a text output."""

from __future__ import annotations

import dspy

from dspy_live.programs.fields.live_outputs import live_outputs
from dspy_live.programs.run.schema import schema_of


class DraftAndFinal(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.Predict("question -> answer")
        self.final = dspy.ChainOfThought("question, draft -> answer, score: float")

    def forward(self, question: str) -> dspy.Prediction:
        return self.final(question=question, draft=self.draft(question=question).answer)


class Chosen(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.best = dspy.BestOfN(dspy.Predict("plan -> answer"), N=2, reward_fn=lambda a, p: 1.0, threshold=1.0)

    def forward(self, question: str) -> dspy.Prediction:
        return self.best(plan=self.plan(question=question).plan)


def test_a_predictor_speaks_for_itself() -> None:
    assert live_outputs(dspy.Predict("question -> answer, score: int")) == {"answer": "self"}
    assert live_outputs(dspy.ChainOfThought("question -> answer")) == {"reasoning": "predict", "answer": "predict"}


def test_of_several_the_last_one_speaks() -> None:
    assert live_outputs(DraftAndFinal()) == {"answer": "final.predict", "reasoning": "final.predict"}


def test_predictors_that_are_tried_several_times_are_not_streamed() -> None:
    assert live_outputs(Chosen()) == {"plan": "plan"}
    assert live_outputs(dspy.Refine(dspy.Predict("q -> a"), N=2, reward_fn=lambda a, p: 1.0, threshold=1.0)) == {}


def test_react_speaks_through_its_extraction() -> None:
    def look(word: str) -> str:
        return word

    live = live_outputs(dspy.ReAct("question -> answer", tools=[look]))
    assert live is not None
    assert live["answer"] == "extract.predict"


def test_a_function_can_not_be_seen_into() -> None:
    assert live_outputs(lambda question: question) is None


def test_the_schema_has_it() -> None:
    assert schema_of(DraftAndFinal()).live == live_outputs(DraftAndFinal())
    assert schema_of(dspy.Predict("question -> answer")).live == {"answer": "self"}
