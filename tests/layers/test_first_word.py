"""A wrapper that cares for the first word only takes itself out of the way after it."""

from __future__ import annotations

import pytest

from dspy_live.core.events import Custom, Event, Partial, Reasoning, Restart, Status, TextDelta, Token, Usage
from dspy_live.layers._first_word import FirstWord
from dspy_live.testing import Recorder


@pytest.mark.parametrize(
    "event",
    [
        Token("a", "answer", "p", 1),
        Partial([1], "items", "p", 1),
        Reasoning("hm", "p", 1),
        TextDelta("a"),
        TextDelta(""),
    ],
)
def test_the_first_word_is_heard_once_and_later_ones_cost_nothing(event: Event) -> None:
    sink, heard = Recorder(), []
    words = [FirstWord(sink, lambda: heard.append("outer"))]
    words.append(FirstWord(words[0], lambda: heard.append("inner")))
    for silent in (Status("s"), Custom("c"), Usage("m", "p", 1), Restart("p", 1, "retry")):
        assert words[1].push(silent)
    assert not words[1].spoke
    words[1].push(event)
    words[1].push(event)
    assert heard == ["inner", "outer"]
    assert all(word.spoke for word in words)
    assert sink.events[-2:] == [event, event]
    assert all(word.push == sink.push for word in words), "also where one stands inside of another"


def test_the_answer_of_the_sink_is_handed_back() -> None:
    word = FirstWord(Recorder(bound=2))
    assert [word.push(event) for event in (Status("s"), TextDelta("a"), TextDelta("b"))] == [True, False, False]
