"""The order of events: what the tables allow, and nothing else."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import Completion, Event, Partial, Predicted, Restart, Started, Status, TextDelta, Token
from dspy_live.sansio.lifecycle import LM, PROGRAM, Lifecycle, mermaid


def token(text: str = "x", field: str = "answer", lm_call: int = 1, last: bool = False) -> Token:
    return Token(text, field, "p", lm_call, last)


def run(*events: Event, table=PROGRAM) -> Lifecycle:
    lifecycle = Lifecycle(table)
    for event in events:
        lifecycle.check(event)
    return lifecycle


def test_a_run_from_start_to_end() -> None:
    lifecycle = Lifecycle()
    assert lifecycle.state == "new"
    lifecycle = run(Started("r"), Status("s"), token(), token(last=True))
    assert lifecycle.state == "running"


@pytest.mark.parametrize("event", [token(), Status("s"), Restart("p", 1, "retry"), TextDelta("a")])
def test_nothing_comes_before_started(event: Event) -> None:
    with pytest.raises(LifecycleError, match="a run that is new; expected Started"):
        run(event)


def test_started_comes_once() -> None:
    with pytest.raises(LifecycleError, match="Started may not come in a run that is running"):
        run(Started("r"), Started("r"))


@pytest.mark.parametrize("result", [Predicted({}), Completion({})])
@pytest.mark.parametrize("table", [PROGRAM, LM])
def test_a_result_is_no_event(table: Any, result: Any) -> None:
    """It is returned: so it can't be lost, and can't come twice."""
    lifecycle = Lifecycle(table)
    if table is PROGRAM:
        lifecycle.check(Started("r"))
    with pytest.raises(LifecycleError):
        lifecycle.check(result)


def test_an_lm_needs_no_start() -> None:
    run(TextDelta("a"), table=LM)
    with pytest.raises(LifecycleError):
        run(Started("r"), table=LM)


def test_an_event_that_is_refused_changes_nothing() -> None:
    lifecycle = run(Started("r"))
    with pytest.raises(LifecycleError):
        lifecycle.check(Started("r"))
    lifecycle.check(token(last=True))
    with pytest.raises(LifecycleError):
        lifecycle.check(token())
    lifecycle.check(token(field="why"))


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
    assert "    running --> running: Status, Token, Partial" in picture
    assert picture.endswith("    running --> [*]\n")
