"""One run on a terminal, and as JSON Lines."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from dspy_live.cli.screens.run_screens import JsonLines, Screen, Terminal, print_json, print_outputs
from dspy_live.cli.single_run import run_on_screen
from dspy_live.core.call import Call
from dspy_live.core.errors import LMFailed, StreamBroken
from dspy_live.core.events import Event, Partial, Predicted, Restart, Started, Status, Token, Tool, Usage
from dspy_live.core.schema import Field, Schema
from dspy_live.layers import Retry
from dspy_live.runtime.scope import Scope
from dspy_live.testing.scripted import ScriptedService, Wait

ONE = Schema("qa", (Field("question"),), (Field("answer"),))
TWO = Schema("qa", (Field("question"),), (Field("reasoning"), Field("answer"), Field("score", type="float")))


def token(text: str, field: str = "answer", predictor: str = "p", lm_call: int = 1) -> Token:
    return Token(text, field, predictor, lm_call)


def run(make_screen: Callable[[Scope], Screen], *steps: Any) -> ScriptedService:
    service = ScriptedService(steps)
    asyncio.run(run_on_screen(service, Call(), make_screen))
    return service


def printed(schema: Schema, *steps: Event | Predicted | Wait, notes: io.StringIO | None = None) -> str:
    out = io.StringIO()
    run(lambda scope: Terminal(scope, schema, out, notes), *steps)
    return out.getvalue()


def test_a_single_text_output_is_nothing_but_its_text() -> None:
    events = (Started("r"), token("Hel"), token("lo"), Usage("m", "p", 1), Predicted({"answer": "Hello"}))
    assert printed(ONE, *events) == "Hello\n"


def test_several_outputs_have_their_names() -> None:
    assert (
        printed(
            TWO,
            token("because", "reasoning"),
            token("yes"),
            Partial(0.5, "score", "p", 1, final=True),
            Predicted({"reasoning": "because", "answer": "yes", "score": 0.5}),
        )
        == "reasoning: because\nanswer: yes\nscore: 0.5\n"
    )


def test_fields_of_other_predictors_are_named() -> None:
    text = printed(ONE, token("q", "query", "first"), token("yes", lm_call=2), Predicted({"answer": "yes"}))
    assert text == "query: q\nanswer: yes\n"


def test_an_output_that_did_not_stream_is_printed_at_the_end() -> None:
    assert printed(ONE, Predicted({"answer": "made by code"})) == "made by code\n"
    assert printed(ONE, token("raw"), Predicted({"answer": "RAW"})) == "raw\nRAW\n"
    assert printed(TWO, Predicted({"answer": ["a", 1]})) == 'answer: ["a",1]\n'


def test_an_lm_call_that_begins_again_ends_the_run_once_its_words_are_printed() -> None:
    out = io.StringIO()
    steps = (token("wro"), Restart("p", 1, "retry"), Wait(60), token("right"), Predicted({"answer": "right"}))
    with pytest.raises(StreamBroken, match=r"retry.*can't take printed words back"):
        run(lambda scope: Terminal(scope, ONE, out), *steps)
    assert out.getvalue() == "wro\n"


def test_a_retry_stops_once_words_are_printed() -> None:
    inner = ScriptedService((token("wro"), LMFailed("cut")))
    service = Retry(3, chance=lambda: 0.0)(inner)
    with pytest.raises(StreamBroken):
        asyncio.run(run_on_screen(service, Call(), lambda scope: Terminal(scope, ONE, io.StringIO())))
    assert len(inner.attempts) == 1


def test_an_lm_call_that_begins_again_before_its_first_words_goes_on() -> None:
    steps = (token("q", "query", "first"), Restart("p", 2, "retry"), token("yes", lm_call=2))
    assert printed(ONE, *steps, Predicted({"answer": "yes"})) == "query: q\nanswer: yes\n"


def test_a_field_that_is_repaired_is_held_until_the_outputs_tell_its_value() -> None:
    repair = (token("ri"), Restart("p", 1, "repair", ("answer",)), token("right"))
    assert printed(ONE, *repair, Predicted({"answer": "right"})) == "ri\nright\n"
    assert printed(ONE, *repair, Predicted({"answer": "ri"})) == "ri\n"
    before = (Restart("p", 1, "repair", ("answer",)), token("right"))
    assert printed(ONE, *before, Predicted({"answer": "right"})) == "right\n"


def test_notes_stay_out_of_the_output() -> None:
    notes = io.StringIO()
    events = (
        Status("searching"),
        Tool("search", "call", "1", {"q": "x"}),
        Tool("search", "result", "1", result="found"),
        token("ok"),
        Predicted({"answer": "ok"}),
    )
    assert printed(ONE, *events, notes=notes) == "ok\n"
    assert notes.getvalue() == '[searching]\n[search call: {"q":"x"}]\n[search result: found]\n'


def test_json_lines_have_every_event_and_the_result() -> None:
    out = io.StringIO()
    steps = (Started("r1", "qa"), token("a"), Restart("p", 1, "retry"), token("b"))
    run(lambda scope: JsonLines(scope, out), *steps, Predicted({"answer": "b"}, value=object()))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["started", "token", "restart", "token", "prediction"]
    assert lines[1]["text"] == "a"
    assert lines[-1] == {"event": "prediction", "outputs": {"answer": "b"}}


def test_a_closed_pipe_ends_the_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    service = ScriptedService((Started("r"), token("a"), Wait(60), Predicted({"answer": "a"})))
    with pytest.raises(BrokenPipeError):
        asyncio.run(run_on_screen(service, Call(), lambda scope: JsonLines(scope, Gone())))
    assert service.attempts[0].cancelled


def test_outputs_of_run() -> None:
    out = io.StringIO()
    print_outputs({"answer": "yes"}, out)
    print_outputs({"answer": "yes", "score": 1.5}, out)
    print_json({"answer": "yes", "score": 1.5}, out)
    assert out.getvalue() == 'yes\nanswer: yes\nscore: 1.5\n{"answer":"yes","score":1.5}\n'
