"""The encoders alone: what each event becomes, for every event there is and for text of all kinds."""

from __future__ import annotations

import itertools
import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.core.errors import StreamBroken
from dspy_live.core.events import Event, Partial, Predicted, Restart, Started, Token
from dspy_live.core.schema import Field, Schema
from dspy_live.sansio.sse import EventDecoder
from dspy_live.server.encoders.events import frames, sse
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.payload import payload
from dspy_live.server.encoders.plain import PlainText
from dspy_live.server.runs.totals import Account

SAMPLES: dict[type[Any], Any] = {str: "x", int: 1, dict[str, Any]: {"a": 1}}
QA = Schema("QA", (Field("question"),), (Field("reasoning"), Field("answer")))


def sample(kind: type[Event]) -> Event:
    values = {f.name: SAMPLES.get(f.type, "x") for f in msgspec.structs.fields(kind) if f.required}
    if "stage" in values:
        values["stage"] = "call"
    return kind(**values)


@pytest.mark.parametrize("kind", get_args(Event))
def test_every_event_has_a_frame_on_every_wire(kind: type[Event]) -> None:
    event = sample(kind)
    name, data = payload(event)
    assert name == kind.__struct_config__.tag
    assert "value" not in data or kind is Partial
    (found,) = EventDecoder().feed(sse("r" * 32, Account()).encode(event))
    assert found.event == name
    assert found.id == "r" * 32 + ":1"
    assert json.loads(found.data).items() >= data.items()
    framed = json.loads(frames("a", "r" * 32, Account()).encode(event))
    assert framed["id"] == "a"
    assert framed["event"] == name
    assert framed["seq"] == 1
    clock = {"duration_ms"}
    assert {k: v for k, v in framed["data"].items() if k not in clock} == {
        k: v for k, v in json.loads(found.data).items() if k not in clock
    }
    PlainText(QA).feed(event)


texts = st.text(st.characters(codec=None), max_size=30)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts, st.integers(0, 9), st.booleans()), max_size=20))
def test_tokens_of_any_text_come_back_as_they_were(parts: list[tuple[str, str, int, bool]]) -> None:
    tokens = [Token(text, "f" + where, where, call, last) for text, where, call, last in parts]
    encoder = sse("r", Account())
    events = EventDecoder().feed(encoder.many(tokens)) if tokens else []
    found = [json.loads(e.data) for e in events]
    assert [(f["text"], f["field"], f["predictor"], f["lm_call"], f.get("last", False)) for f in found] == [
        (t.text, t.field, t.predictor, t.lm_call, t.last) for t in tokens
    ]
    assert [e.id for e in events] == [f"r:{i}" for i in range(1, len(tokens) + 1)]
    assert encoder.tokens == len(tokens)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary() | st.sets(st.integers())


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(texts | st.integers(), inner)


@settings(deadline=None)
@given(st.recursive(leaves, nested, max_leaves=20))
def test_any_value_becomes_json(value: Any) -> None:
    json.loads(dumps(value))


def test_a_value_that_refers_to_itself_does_not_break_a_stream() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "without a JSON form" in json.loads(dumps(loop))
    whole = json.loads(dumps({"run": {"id": "r"}, "outputs": {"answer": "yes", "loop": loop, "huge": 10**5000}}))
    assert whole["run"] == {"id": "r"}
    assert whole["outputs"]["answer"] == "yes"
    assert "without a JSON form" in whole["outputs"]["loop"]


# -- the one text of doors that can't take words back --------------------------------------------


def said(text: str, call: int = 1, field: str = "answer") -> list[Event]:
    return [Token(c, field, "p", call) for c in text]


def given_out(events: list[Event], schema: Schema = QA) -> list[str]:
    plain = PlainText(schema)
    return [piece for event in events if (piece := plain.feed(event))]


def test_pieces_come_as_they_are_said_and_the_rest_at_the_end() -> None:
    assert given_out([Started("r"), *said("no", field="reasoning"), *said("ab"), Predicted({"answer": "abc"})]) == [
        "a", "b", "c",
    ]  # fmt: skip


@pytest.mark.parametrize("fields", [(), ("answer",)])
def test_what_was_taken_back_must_begin_the_value(fields: tuple[str, ...]) -> None:
    events = [*said("ab"), Restart("p", 1, "retry", fields), *said("xy")]
    assert "".join(given_out([*events, Predicted({"answer": "abxy"})])) == "abxy"
    with pytest.raises(StreamBroken):
        given_out([*events, Predicted({"answer": "xy"})])


def test_a_restart_of_something_else_is_nothing_to_it() -> None:
    events = [*said("ab"), Restart("p", 1, "repaired", ("reasoning",)), Restart("p", 2, "retry"), *said("c")]
    assert given_out([*events, Predicted({"answer": "abc"})]) == ["a", "b", "c"]


def test_a_field_with_several_speakers_is_held_back_where_the_schema_says_so() -> None:
    schema = Schema("S", QA.inputs, QA.outputs, live={"reasoning": "p"})
    events = [*said("first try"), *said("second", call=2), Predicted({"answer": "second"})]
    assert given_out(events, schema) == ["second"]
    with pytest.raises(StreamBroken):
        given_out(events)


def test_only_the_predictor_that_the_schema_names_is_believed() -> None:
    schema = Schema("S", QA.inputs, QA.outputs, live={"answer": "final"})
    final = [Token(c, "answer", "final", 2) for c in "ok"]
    assert given_out([*said("a draft"), *final, Predicted({"answer": "ok!"})], schema) == ["o", "k", "!"]


def test_a_program_that_gives_other_fields_than_its_predictor() -> None:
    assert given_out([*said("ab"), Predicted({"result": "other"})]) == ["a", "b"]
    assert given_out([Predicted({"n": 1, "result": "other"})]) == ["other"]
    assert given_out([Predicted({"n": 1})]) == ['{"n":1}']
    assert given_out([Predicted({"answer": None})]) == ["null"]


@settings(deadline=None)
@given(st.text(min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_any_chunking_gives_the_value(value: str, cuts: list[int]) -> None:
    edges = sorted({0, len(value), *(c for c in cuts if c < len(value))})
    tokens = [Token(value[a:b], "answer", "p", 1) for a, b in itertools.pairwise(edges)]
    assert "".join(given_out([*tokens, Predicted({"answer": value})])) == value


def test_what_python_calls_nan_is_null_beside_what_only_python_can_write() -> None:
    nan, infinite = float("nan"), float("inf")
    value = {"a": nan, "b": [infinite, "NaN"], "huge": 10**40, "half": "\ud800"}
    body = dumps(value)
    assert json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == {
        "a": None,
        "b": [None, "NaN"],
        "huge": 10**40,
        "half": "\ud800",
    }
