"""What a run looks like on a terminal and as JSON Lines."""

from __future__ import annotations

import io
import json

from dspy_live.cli.screens.show import JsonLines, Terminal, show_json, show_outputs
from dspy_live.core.events import Event, Partial, Predicted, Restart, Started, Status, Token, Tool, Usage
from dspy_live.core.schema import Field, Schema

ONE = Schema("qa", (Field("question"),), (Field("answer"),))
TWO = Schema("qa", (Field("question"),), (Field("reasoning"), Field("answer"), Field("score", type="float")))


def token(text: str, field: str = "answer", predictor: str = "p", lm_call: int = 1) -> Token:
    return Token(text, field, predictor, lm_call)


def shown(schema: Schema, *events: Event, notes: io.StringIO | None = None) -> str:
    out = io.StringIO()
    screen = Terminal(schema, out, notes)
    for event in events:
        screen.show(event)
    screen.end()
    return out.getvalue()


def test_a_single_text_output_is_nothing_but_its_text() -> None:
    events = (Started("r"), token("Hel"), token("lo"), Usage("m", "p", 1), Predicted({"answer": "Hello"}))
    assert shown(ONE, *events) == "Hello\n"


def test_several_outputs_have_their_names() -> None:
    assert (
        shown(
            TWO,
            token("because", "reasoning"),
            token("yes"),
            Partial(0.5, "score", "p", 1, final=True),
            Predicted({"reasoning": "because", "answer": "yes", "score": 0.5}),
        )
        == "reasoning: because\nanswer: yes\nscore: 0.5\n"
    )


def test_what_other_predictors_say_on_the_way_is_named() -> None:
    said = shown(ONE, token("q", "query", "first"), token("yes", lm_call=2), Predicted({"answer": "yes"}))
    assert said == "query: q\nanswer: yes\n"


def test_an_output_that_did_not_stream_is_printed_at_the_end() -> None:
    assert shown(ONE, Predicted({"answer": "made by code"})) == "made by code\n"
    assert shown(ONE, token("raw"), Predicted({"answer": "RAW"})) == "raw\nRAW\n"
    assert shown(TWO, Predicted({"answer": ["a", 1]})) == 'answer: ["a",1]\n'


def test_words_that_are_taken_back_are_marked() -> None:
    said = shown(ONE, token("wro"), Restart("p", 1, "retry"), token("right"), Predicted({"answer": "right"}))
    assert said == "wro\n[begun again: retry]\nright\n"


def test_notes_stay_out_of_the_output() -> None:
    notes = io.StringIO()
    events = (
        Status("searching"),
        Tool("search", "call", "1", {"q": "x"}),
        Tool("search", "result", "1", result="found"),
        token("ok"),
    )
    assert shown(ONE, *events, notes=notes) == "ok\n"
    assert notes.getvalue() == '[searching]\n[search call: {"q":"x"}]\n[search result: found]\n'


def test_json_lines_have_every_event() -> None:
    out = io.StringIO()
    screen = JsonLines(out)
    for event in (Started("r1", "qa"), token("a\nb"), Predicted({"answer": "a\nb"}, value=object())):
        screen.show(event)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["started", "token", "prediction"]
    assert lines[1]["text"] == "a\nb"
    assert lines[2] == {"event": "prediction", "outputs": {"answer": "a\nb"}}


def test_outputs_of_run() -> None:
    out = io.StringIO()
    show_outputs({"answer": "yes"}, out)
    show_outputs({"answer": "yes", "score": 1.5}, out)
    show_json({"answer": "yes", "score": 1.5}, out)
    assert out.getvalue() == 'yes\nanswer: yes\nscore: 1.5\n{"answer":"yes","score":1.5}\n'
