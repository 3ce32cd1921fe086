"""The shorter way says and reads what DSPy's own adapters say and read, to the byte."""

from __future__ import annotations

import enum
import json
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import given
from hypothesis import strategies as st

from dspy_live import LM
from dspy_live.programs.stock.messages import messages_of
from dspy_live.programs.stock.plan import READERS, plan_of
from dspy_live.programs.stock.response_format import json_options


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


adapters = st.sampled_from([*READERS])
INPUTS: dict[Any, Any] = {
    str: st.one_of(words, st.lists(words, max_size=3)),
    list[str]: st.lists(words, max_size=3),
    int: st.integers(),
    float: st.floats(),
    bool: st.booleans(),
}


def is_plain(annotation: Any, value: Any) -> bool:
    """True for the values that are written without asking DSPy."""
    if annotation is float:
        return type(value) is float and abs(value) < float("inf")
    return annotation in INPUTS


@given(st.data())
def test_messages_are_those_of_dspy(data: st.DataObject) -> None:
    signature, adapter = data.draw(signatures()), data.draw(adapters)()
    demos = own_demos(data.draw, signature)
    inputs = {name: data.draw(INPUTS.get(f.annotation, values)) for name, f in signature.input_fields.items()}
    plan = plan_of(signature, type(adapter))
    assert plan is not None
    for _ in range(2):  # the second time from what was kept
        messages = messages_of(plan, adapter, signature, demos, inputs)
        plain = all(is_plain(field.annotation, inputs[name]) for name, field in signature.input_fields.items())
        assert messages == (adapter.format(signature, demos, inputs) if plain else None)


@given(st.data())
def test_demos_that_were_changed_are_written_anew(data: st.DataObject) -> None:
    signature, adapter = data.draw(signatures()), data.draw(adapters)()
    plan = plan_of(signature, type(adapter))
    assert plan is not None
    demos = [dspy.Example(**demo) for demo in own_demos(data.draw, signature)]
    inputs = dict.fromkeys(signature.input_fields, "?")
    plan.demos.messages(demos, lambda: adapter.format_demos(signature, demos))
    for demo in demos:
        for name in list(demo.keys()):
            value = demo[name]
            if isinstance(value, list):
                value.append("one more")
            elif isinstance(value, Point):
                value.x += 1
            else:
                demo[name] = data.draw(st.one_of(st.just(value), st.sampled_from([1, True, 1.0, "1", None])))
    told = plan.demos.messages(demos, lambda: adapter.format_demos(signature, demos))
    assert told == adapter.format_demos(signature, demos), inputs


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)


def replies(draw: Any, signature: Any, adapter: type) -> str:
    """A reply in the adapter's format, or something like it."""
    names = [*signature.output_fields, "completed", "other"]
    chosen = draw(st.one_of(st.just(names), st.permutations(names), st.lists(st.sampled_from(names), max_size=5)))
    if adapter is dspy.JSONAdapter:
        pairs = ", ".join(f"{json.dumps(name)}: {json.dumps(draw(json_values))}" for name in chosen)
        around = draw(st.sampled_from(["{%s}", "{%s}", " {%s}\n", "Here it is: {%s}", "{%s", "[{%s}]", "%s"]))
        return around.replace("%s", pairs)
    if adapter is dspy.XMLAdapter:
        plain = draw(st.booleans())
        parts = [draw(words).replace("<", "").replace("&", "") if plain else draw(words) for _ in chosen]
        return "\n".join(f"<{name}>{part}</{name}>" for name, part in zip(chosen, parts, strict=True))
    headers = [f"[[ ## {name} ## ]]" for name in names]
    lines = draw(
        st.lists(st.one_of(words, st.sampled_from(headers), st.sampled_from(headers).map("  {} and more".format)))
    )
    ordered = "\n".join(f"[[ ## {name} ## ]]\n{draw(said)}" for name in signature.output_fields)
    return str(draw(st.sampled_from(["\n".join(lines), ordered, ordered + "\n" + "\n".join(lines)])))


said = st.one_of(
    words,
    st.sampled_from(["5", "5.0", "true", "True", '["a"]', "[1]", '{"x": 1}', '{"a": 1', '""', "null", "red", "yes"]),
)


@given(st.data())
def test_values_are_those_of_dspy(data: st.DataObject) -> None:
    signature, adapter = data.draw(signatures()), data.draw(adapters)()
    plan = plan_of(signature, type(adapter))
    assert plan is not None
    text = replies(data.draw, signature, type(adapter))
    read = plan.values(text)
    if read is not None:  # otherwise DSPy is asked
        assert outcome(lambda: read) == outcome(lambda: adapter.parse(signature, text))


@pytest.mark.parametrize(
    ("adapter", "text"),
    [
        (dspy.ChatAdapter, "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"),
        (dspy.JSONAdapter, '{"answer": "Paris"}'),
        (dspy.XMLAdapter, "<answer>\nParis\n</answer>"),
    ],
)
def test_the_usual_reply_is_read_without_dspy(adapter: Any, text: str) -> None:
    plan = plan_of(dspy.Signature("question -> answer"), adapter)
    assert plan is not None
    assert plan.values(text) == {"answer": "Paris"}


def outcome(read: Any) -> Any:
    """The values with their types and order, or the error's kind and words."""
    try:
        return [(name, type(value), value) for name, value in read().items()]
    except (AdapterParseError, TypeError) as exc:
        return str(exc)


@given(st.data(), st.sampled_from([(), ("response_schema",), ("function_calling",)]))
def test_response_formats_are_those_of_dspy(data: st.DataObject, can: tuple[str, ...]) -> None:
    signature, adapter = data.draw(signatures()), dspy.JSONAdapter()
    lm = LM("openai/m", api_key="x", capabilities=can)
    plan = plan_of(signature, dspy.JSONAdapter)
    assert plan is not None
    theirs: dict[str, Any] = {}
    adapter._prepare_response_format(lm, theirs, signature)
    for _ in range(2):
        ours = json_options(plan, adapter, lm, signature)
        assert ours is not None
        assert schema_of(ours) == schema_of(theirs)
        spoilt = schema_of(ours)
        spoilt.clear()


def schema_of(options: dict[str, Any]) -> Any:
    """What goes out as the form of a reply."""
    form = options["response_format"]
    return form.model_json_schema() if isinstance(form, type) else form  # type: ignore[attr-defined]


def test_plan_follows_changed_instructions_and_fields() -> None:
    signature = dspy.Signature("question -> answer", "Say it in French.")
    first = plan_of(signature, dspy.ChatAdapter)
    assert first is plan_of(signature, dspy.ChatAdapter)
    signature.instructions = "Say it in Greek."
    second = plan_of(signature, dspy.ChatAdapter)
    assert first is not None
    assert second is not None
    assert "Greek" in second.system
    assert "French" not in second.system
    signature.model_fields["answer"] = dspy.Signature({"answer": (int, dspy.OutputField())}).model_fields["answer"]
    third = plan_of(signature, dspy.ChatAdapter)
    assert third is not None
    assert third.values("[[ ## answer ## ]]\n5") == {"answer": 5}


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
    for adapter in READERS:
        assert plan_of(dspy.Signature(fields), adapter) is None
