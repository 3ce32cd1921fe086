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
from dspy_live.server.runs.totals import RunTotals

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
    (found,) = EventDecoder().feed(sse("r" * 32, RunTotals()).encode(event))
    assert found.event == name
    assert found.id == "r" * 32 + ":1"
    assert json.loads(found.data).items() >= data.items()
    framed = json.loads(frames("a", "r" * 32, RunTotals()).encode(event))
    assert framed == {"id": "a", "event": name, "seq": 1, "data": json.loads(found.data)}
    PlainText(QA, pytest.fail).feed(event)  # type: ignore[arg-type]


def test_a_result_has_a_frame_on_every_wire_with_the_runs_totals() -> None:
    result = Predicted({"answer": "yes"}, value=object())
    (found,) = EventDecoder().feed(sse("r", RunTotals()).prediction(result))
    framed = json.loads(frames("a", "r", RunTotals()).prediction(result))
    for name, data in ((found.event, json.loads(found.data)), (framed["event"], framed["data"])):
        assert name == "prediction"
        assert set(data) == {"outputs", "duration_ms", "run"}
        assert data["outputs"] == {"answer": "yes"}
        assert data["run"]["id"] == "r"


texts = st.text(st.characters(codec=None), max_size=30)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts, st.integers(0, 9), st.booleans()), max_size=20))
def test_tokens_of_any_text_come_back_as_they_were(parts: list[tuple[str, str, int, bool]]) -> None:
    tokens = [Token(text, "f" + where, where, call, last) for text, where, call, last in parts]
    encoder = sse("r", RunTotals())
    events = EventDecoder().feed(b"".join(map(encoder.encode, tokens)))
    found = [json.loads(e.data) for e in events]
    assert [(f["text"], f["field"], f["predictor"], f["lm_call"], f.get("last", False)) for f in found] == [
        (t.text, t.field, t.predictor, t.lm_call, t.last) for t in tokens
    ]
    assert [e.id for e in events] == [f"r:{i}" for i in range(1, len(tokens) + 1)]
    assert encoder.totals.tokens == len(tokens)


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


# The one text of doors that can't take words back.


def tokens_of(text: str, call: int = 1, field: str = "answer") -> list[Event]:
    return [Token(c, field, "p", call) for c in text]


def given_out(events: list[Event], outputs: dict[str, Any], schema: Schema = QA, hold: bool = False) -> list[str]:
    """The pieces that a door gives out, and the rest of the text at the end; raises what ends the run."""
    stopped: list[Exception] = []
    plain = PlainText(schema, stopped.append, hold=hold)
    pieces = []
    for event in events:
        pieces.append(plain.feed(event))
        if stopped:
            raise stopped[0]
    return [piece for piece in [*pieces, plain.rest(Predicted(outputs))] if piece]


def test_pieces_come_as_the_lm_gives_them_and_the_rest_at_the_end() -> None:
    events = [Started("r"), *tokens_of("no", field="reasoning"), *tokens_of("ab")]
    assert given_out(events, {"answer": "abc"}) == ["a", "b", "c"]
    assert given_out(events, {"answer": "abc"}, hold=True) == ["abc"]


def test_a_repair_after_the_first_piece_holds_the_rest_which_must_go_on_from_there() -> None:
    events = [*tokens_of("ab"), Restart("p", 1, "repaired", ("answer",)), *tokens_of("xy")]
    assert given_out(events, {"answer": "abxy"}) == ["a", "b", "xy"]
    with pytest.raises(StreamBroken, match="can't take words back"):
        given_out(events, {"answer": "xy"})
    assert given_out(events, {"answer": "xy"}, hold=True) == ["xy"]


def test_a_restart_of_an_lm_call_whose_text_was_given_out_ends_the_run_at_once() -> None:
    begun = tokens_of("ab")
    with pytest.raises(StreamBroken, match=r"can't take words back \(ConnectionError: another try\)"):
        given_out([*begun, Restart("p", 1, "ConnectionError: another try")], {"answer": "ab"})
    assert given_out([*begun, Restart("p", 1, "retry"), *tokens_of("xy")], {"answer": "xy"}, hold=True) == ["xy"]


def test_a_restart_before_the_first_piece_lets_another_lm_call_speak() -> None:
    """A fallback to another adapter goes on under a new LM call, a retry under the same."""
    unseen = [*tokens_of("no", field="reasoning"), Token("", "answer", "p", 1), Restart("p", 1, "retry")]
    for call in (1, 2):
        assert given_out([*unseen, *tokens_of("ab", call=call)], {"answer": "abc"}) == ["a", "b", "c"]


def test_a_restart_of_something_else_is_nothing_to_it() -> None:
    events = [*tokens_of("ab"), Restart("p", 1, "repaired", ("reasoning",)), Restart("p", 2, "retry"), *tokens_of("c")]
    assert given_out(events, {"answer": "abc"}) == ["a", "b", "c"]


def test_text_of_a_second_lm_call_is_held_until_the_result() -> None:
    events = [*tokens_of("first try"), *tokens_of("second", call=2)]
    assert "".join(given_out(events, {"answer": "first try, well done"})) == "first try, well done"
    with pytest.raises(StreamBroken):
        given_out(events, {"answer": "second"})
    assert given_out(events, {"answer": "second"}, hold=True) == ["second"]


def test_a_field_of_several_predictors_is_held_back_where_the_schema_says_so() -> None:
    schema = Schema("S", QA.inputs, QA.outputs, live={"reasoning": "p"})
    events = [*tokens_of("first try"), *tokens_of("second", call=2)]
    assert given_out(events, {"answer": "second"}, schema) == ["second"]


def test_only_the_predictor_that_the_schema_names_is_believed() -> None:
    schema = Schema("S", QA.inputs, QA.outputs, live={"answer": "final"})
    final = [Token(c, "answer", "final", 2) for c in "ok"]
    assert given_out([*tokens_of("a draft"), *final], {"answer": "ok!"}, schema) == ["o", "k", "!"]


def test_a_program_that_gives_other_fields_than_its_predictor() -> None:
    assert given_out(tokens_of("ab"), {"result": "other"}) == ["a", "b"]
    assert given_out([], {"n": 1, "result": "other"}) == ["other"]
    assert given_out([], {"n": 1}) == ['{"n":1}']
    assert given_out([], {"answer": None}) == ["null"]


@settings(deadline=None)
@given(st.text(min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_any_chunking_gives_the_value(value: str, cuts: list[int]) -> None:
    edges = sorted({0, len(value), *(c for c in cuts if c < len(value))})
    tokens: list[Event] = [Token(value[a:b], "answer", "p", 1) for a, b in itertools.pairwise(edges)]
    assert "".join(given_out(tokens, {"answer": value})) == value


def test_nan_is_null_in_json() -> None:
    nan, infinite = float("nan"), float("inf")
    value = {"a": nan, "b": [infinite, "NaN"], "huge": 10**40, "half": "\ud800"}
    body = dumps(value)
    assert json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == {
        "a": None,
        "b": [None, "NaN"],
        "huge": 10**40,
        "half": "\ud800",
    }
