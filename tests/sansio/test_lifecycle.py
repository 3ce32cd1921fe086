"""The order of events: what the tables allow, and nothing else."""

from __future__ import annotations

from typing import get_args

import pytest

from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import (
    Completion,
    Event,
    Partial,
    Predicted,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
)
from dspy_live.sansio.lifecycle import LM, PROGRAM, Lifecycle, mermaid


def token(text: str = "x", field: str = "answer", lm_call: int = 1, last: bool = False) -> Token:
    return Token(text, field, "p", lm_call, last)


def run(*events: Event, table=PROGRAM) -> Lifecycle:
    lifecycle = Lifecycle(table)
    for event in events:
        lifecycle.check(event)
    return lifecycle


def test_a_run_from_start_to_end() -> None:
    lifecycle = run(Started("r"), Status("s"), token(), token(last=True), Predicted({}))
    assert lifecycle.state == "done"
    lifecycle.end()


@pytest.mark.parametrize("event", [token(), Status("s"), Predicted({}), Completion({})])
def test_nothing_comes_before_started(event: Event) -> None:
    with pytest.raises(LifecycleError, match="a run that is new; expected Started"):
        run(event)


@pytest.mark.parametrize("event", [token(), Status("s"), Predicted({}), Started("r")])
def test_nothing_comes_after_the_result(event: Event) -> None:
    with pytest.raises(LifecycleError, match="a run that is done; expected nothing more"):
        run(Started("r"), Predicted({}), event)


def test_started_comes_once_and_a_program_has_no_completion() -> None:
    for event in (Started("r"), Completion({})):
        with pytest.raises(LifecycleError):
            run(Started("r"), event)


def test_the_end_without_a_result_is_a_bug() -> None:
    with pytest.raises(LifecycleError, match="the stream ended in a run that is running"):
        run(Started("r"), token()).end()


def test_an_lm_needs_no_start() -> None:
    run(TextDelta("a"), Completion({}), table=LM).end()
    run(Completion({}), table=LM).end()
    with pytest.raises(LifecycleError):
        run(Completion({}), TextDelta("a"), table=LM)


@pytest.mark.parametrize("after", [token(), token(last=True), Partial(1, "answer", "p", 1)])
@pytest.mark.parametrize("end", [token(last=True), Partial(1, "answer", "p", 1, final=True)])
def test_a_complete_field_is_silent(end: Event, after: Event) -> None:
    with pytest.raises(LifecycleError, match="'answer' of LM call 1, which was complete"):
        run(Started("r"), end, after)


def test_other_fields_and_other_calls_are_not_concerned() -> None:
    run(Started("r"), token(last=True), token(field="why"), token(lm_call=2))


def test_a_restart_opens_the_fields_it_names() -> None:
    ended = [token(last=True), token(field="why", last=True), token(lm_call=2, last=True)]
    run(Started("r"), *ended, Restart("p", 1, "retry"), token(), token(field="why"))
    run(Started("r"), *ended, Restart("p", 1, "repair", fields=("why",)), token(field="why"))
    for still in (token(), token(lm_call=2)):
        with pytest.raises(LifecycleError):
            run(Started("r"), *ended, Restart("p", 1, "repair", fields=("why",)), still)


def test_every_event_has_its_place_in_a_table() -> None:
    placed = {kind for table in (PROGRAM, LM) for row in table.values() for kind in row}
    assert placed == set(get_args(Event))


def test_the_picture() -> None:
    assert mermaid(LM).splitlines()[:2] == ["stateDiagram-v2", "    [*] --> new"]
    picture = mermaid()
    assert "    new --> running: Started\n" in picture
    assert "    running --> done: Predicted\n" in picture
    assert picture.endswith("    done --> [*]\n")
