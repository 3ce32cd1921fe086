"""The shorter way says and reads what DSPy's own ``ChatAdapter`` says and reads, to the byte."""

from __future__ import annotations

import enum
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.programs.stock.chat_format import messages_of, values_of
from dspy_live.programs.stock.plan import plan_of


class Point(pydantic.BaseModel):
    x: int
    name: str = "origin"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


TYPES: list[Any] = [str, int, float, bool, list[str], dict[str, int], str | None, Literal["yes", "no"], Point, Colour]
NAMES = ["question", "context", "answer", "reason", "score", "items", "point", "colour"]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
words = st.one_of(
    texts,
    st.sampled_from(
        ["", "  ", "a\n\nb", "[[ ## answer ## ]]", "{}", "¿qué?\r\n", "{{x}}", "«»", "[[ ## completed ## ]]", "5"]
    ),
)
values = st.one_of(words, st.integers(), st.booleans(), st.none(), st.lists(words, max_size=3), st.just(Point(x=1)))


@st.composite
def signatures(draw: Any) -> Any:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True))
    split = draw(st.integers(1, len(names) - 1))
    fields: dict[str, Any] = {}
    for number, name in enumerate(names):
        make = dspy.InputField if number < split else dspy.OutputField
        desc = draw(st.one_of(st.none(), words))
        fields[name] = (draw(st.sampled_from(TYPES)), make() if desc is None else make(desc=desc))
    return dspy.Signature(fields, draw(st.one_of(st.just("Answer."), texts)))


def own_demos(draw: Any, signature: Any) -> list[dict[str, Any]]:
    names = [*signature.input_fields, *signature.output_fields]
    return draw(st.lists(st.dictionaries(st.sampled_from(names), values, max_size=len(names)), max_size=2))


@given(st.data())
def test_messages_are_those_of_dspy(data: st.DataObject) -> None:
    signature = data.draw(signatures())
    demos = own_demos(data.draw, signature)
    strings = data.draw(st.booleans())
    inputs = {name: data.draw(words if strings else values) for name in signature.input_fields}
    plan = plan_of(signature)
    assert plan is not None
    adapter = dspy.ChatAdapter()
    assert messages_of(plan, adapter, signature, demos, inputs) == adapter.format(signature, demos, inputs)


@given(st.data())
def test_values_are_those_of_dspy(data: st.DataObject) -> None:
    signature = data.draw(signatures())
    plan = plan_of(signature)
    assert plan is not None
    headers = [f"[[ ## {name} ## ]]" for name in [*signature.output_fields, "completed", "other"]]
    lines = data.draw(
        st.lists(st.one_of(words, st.sampled_from(headers), st.sampled_from(headers).map("  {} and more".format)))
    )
    ordered = "\n".join(f"[[ ## {name} ## ]]\n{data.draw(words)}" for name in signature.output_fields)
    text = data.draw(st.sampled_from(["\n".join(lines), ordered, ordered + "\n" + "\n".join(lines)]))
    adapter = dspy.ChatAdapter()
    assert outcome(lambda: values_of(plan, adapter, signature, text)) == outcome(lambda: adapter.parse(signature, text))


def outcome(read: Any) -> Any:
    """The values with their types and order, or the error's kind and words."""
    try:
        return [(name, type(value), value) for name, value in read().items()]
    except AdapterParseError as exc:
        return str(exc)


def test_plan_follows_changed_instructions_and_fields() -> None:
    signature = dspy.Signature("question -> answer", "Say it in French.")
    first = plan_of(signature)
    assert first is plan_of(signature)
    signature.instructions = "Say it in Greek."
    second = plan_of(signature)
    assert first is not None
    assert second is not None
    assert "Greek" in second.system
    assert "French" not in second.system
    signature.model_fields["answer"] = dspy.Signature({"answer": (int, dspy.OutputField())}).model_fields["answer"]
    third = plan_of(signature)
    assert third is not None
    assert third.annotations == {"answer": int}


@pytest.mark.parametrize(
    "fields",
    [
        {"history": (dspy.History, dspy.InputField()), "answer": (str, dspy.OutputField())},
        {"tools": (list[dspy.Tool], dspy.InputField()), "answer": (str, dspy.OutputField())},
        {"image": (dspy.Image, dspy.InputField()), "answer": (str, dspy.OutputField())},
        {"question": (str, dspy.InputField()), "calls": (dspy.ToolCalls, dspy.OutputField())},
        {"question": (str, dspy.InputField()), "reasoning": (dspy.Reasoning, dspy.OutputField())},
        {"demos": (str, dspy.InputField()), "answer": (str, dspy.OutputField())},
        {"question": (str, dspy.InputField())},
    ],
    ids=["history", "tools", "image", "tool calls", "reasoning", "an argument of Predict's own", "no output"],
)
def test_no_plan_for_fields_that_dspy_treats_apart(fields: Any) -> None:
    assert plan_of(dspy.Signature(fields)) is None
