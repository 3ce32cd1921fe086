"""Values fit their schemas; types are read from every notation that DSPy's prompts use."""

from __future__ import annotations

import enum
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Literal, Union
from uuid import UUID

import jsonschema
import pytest
from dspy.adapters.baml_adapter import _render_type_str
from dspy.adapters.utils import get_annotation_name
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter
from typing_extensions import TypedDict

from dspy_live.simulator.prose import Prose
from dspy_live.simulator.typenames import from_annotation, from_baml, from_note, is_known
from dspy_live.simulator.values import Values


class Colour(enum.Enum):
    red = "red"
    deep_blue = "deep blue"


class Leaf(BaseModel):
    name: str = Field(min_length=3, max_length=8)
    share: float = Field(gt=0, lt=1)
    even: int = Field(multiple_of=2, ge=10, le=20)
    tags: set[str] = Field(min_length=2, max_length=3)
    code: str = Field(default="AB-123", pattern=r"^[A-Z]{2}-\d{3}$")
    colour: Colour = Colour.red
    kind: Literal["a", 1] = "a"
    maybe: int | None = None


class Tree(BaseModel):
    title: str
    children: list[Tree] = []
    leaves: dict[str, Leaf] = {}
    parent: Tree | None = None


class Typed(TypedDict):
    x: int
    y: list[str]


TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    list[int],
    list[list[str]],
    dict[str, Any],
    dict[str, list[float]],
    dict[int, str],
    tuple[int, str, bool],
    tuple[int, ...],
    set[int],
    Literal["one", "it's two", 3],
    str | None,
    int | None,
    Union[int, str, None],  # noqa: UP007 - the older notation is one of those that appear
    list[Literal["x", "y"]],
]
MODELS: list[Any] = [Leaf, Tree, list[Tree], Typed, Colour, date, datetime, time, timedelta, Decimal, UUID]


def made(schema: Any, seed: int, name: str = "value") -> Any:
    rng = Random(seed)
    return Values(rng, Prose(rng, ["cats"])).make(schema, name)


# Pydantic's schema of a mapping does not tell that its keys are numbers.
@pytest.mark.parametrize("kind", [kind for kind in TYPES + MODELS if kind != dict[int, str]], ids=str)
def test_values_fit_pydantics_schemas(kind: Any) -> None:
    adapter = TypeAdapter(kind)
    for seed in range(30):
        value = made(adapter.json_schema(), seed)
        jsonschema.validate(value, adapter.json_schema())
        adapter.validate_json(json.dumps(value))


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_values_fit_types_known_by_their_python_name(kind: Any) -> None:
    schema = from_annotation(get_annotation_name(kind))
    assert is_known(schema)
    for seed in range(10):
        TypeAdapter(kind).validate_python(made(schema, seed))


@pytest.mark.parametrize("kind", [*[k for k in TYPES if k not in (set[int],)], Typed], ids=str)
def test_values_fit_types_in_bamls_form(kind: Any) -> None:
    text = _render_type_str(kind)
    schema = from_baml(text)
    if is_known(schema) and not text.startswith("tuple"):
        for seed in range(10):
            TypeAdapter(kind).validate_python(made(schema, seed))


def test_bamls_form_of_a_model_is_read_whole() -> None:
    class Address(BaseModel):
        """Where it is."""

        street: str
        number: int = Field(description="of the house, or [0] {none}")

    class Person(BaseModel):
        """Somebody,
        somewhere."""

        name: str = Field(alias="fullName")
        homes: list[Address]
        mood: Literal["calm", "a or b"] | None
        scores: list[list[float]]
        by_year: dict[str, int]

    schema = from_baml(_render_type_str(Person))
    assert list(schema["properties"]) == ["name", "homes", "mood", "scores", "by_year"]
    assert schema["properties"]["homes"]["items"]["properties"]["number"] == {"type": "integer"}
    assert schema["properties"]["mood"]["anyOf"][-1] == {"type": "null"}
    assert schema["properties"]["scores"]["items"]["items"] == {"type": "number"}
    for seed in range(10):
        Person.model_validate({**(value := made(schema, seed)), "fullName": value["name"]})


@pytest.mark.parametrize(
    ("note", "schema"),
    [
        ("# note: the value you produce must be True or False", {"type": "boolean"}),
        ("# note: the value you produce must be a single float value", {"type": "number"}),
        ("# note: the value you produce must be one of: a; b c", {"enum": ["a", "b c"]}),
        ('# note: the value you produce must adhere to the JSON schema: {"type": "array"} and more', {"type": "array"}),
        ("# note: the value you produce must adhere to the JSON schema: {broken", None),
        ("nothing of a type", None),
    ],
)
def test_notes(note: str, schema: Any) -> None:
    assert from_note(note) == schema


@given(st.text(max_size=60))
def test_no_type_name_breaks_the_readers(text: str) -> None:
    for seed, schema in enumerate((from_annotation(text), from_baml(text), from_note(text))):
        json.dumps(made(schema, seed), default=str)


schemas = st.recursive(
    st.sampled_from([{"type": t} for t in ("string", "integer", "number", "boolean", "null")])
    | st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
        st.integers(-50, 50),
        st.integers(0, 9),
    )
    | st.builds(
        lambda low, span: {"type": "number", "exclusiveMinimum": low, "maximum": low + span},
        st.integers(-50, 50),
        st.integers(1, 9),
    )
    | st.builds(
        lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
        st.integers(0, 60),
        st.integers(0, 9),
    )
    | st.builds(lambda values: {"enum": values}, st.lists(st.integers() | st.text(), min_size=1, max_size=4)),
    lambda inner: (
        st.builds(
            lambda items, low, span: {"type": "array", "items": items, "minItems": low, "maxItems": low + span},
            inner,
            st.integers(0, 5),
            st.integers(0, 3),
        )
        | st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if required],
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from(["name", "qty", "answer", "score"]), inner),
            st.booleans(),
        )
        | st.builds(lambda choices: {"anyOf": choices}, st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=8,
)


@given(schemas, st.integers(0, 2**32))
def test_values_fit_any_schema(schema: Any, seed: int) -> None:
    jsonschema.validate(made(schema, seed), schema)
