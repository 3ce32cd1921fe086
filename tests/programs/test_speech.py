"""One LM call's words: what was said, what the adapter has read, and what is said to make the two one."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.core.call import Call
from dspy_live.core.events import Event, Reasoning, Restart, Token
from dspy_live.programs.fields.field_stream import Speech
from dspy_live.sansio.lifecycle import Lifecycle

TWO = dspy.Signature("question -> answer, reason")
DONE = "\n\n[[ ## completed ## ]]"


class Channel:
    full = False


class FakeRun:
    """Takes the events of a run, in the order that is allowed."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.raw = False
        self.call = Call({})
        self.channel = self.words = Channel()
        self.lifecycle = Lifecycle({"new": dict.fromkeys((Token, Restart, Reasoning), "new")})  # type: ignore[arg-type,dict-item]

    def push(self, event: Event) -> None:
        self.lifecycle.check(event)
        self.events.append(event)

    def first_token(self) -> None:
        pass

    def heard(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for event in self.events:
            if isinstance(event, Restart):
                for field in event.fields or tuple(texts):
                    texts.pop(field, None)
            elif isinstance(event, Token):
                texts[event.field] = texts.get(event.field, "") + event.text
        return texts

    def ends(self) -> set[str]:
        ended: set[str] = set()
        for event in self.events:
            if isinstance(event, Restart):
                ended -= set(event.fields or tuple(ended))
            elif isinstance(event, Token) and event.last:
                ended.add(event.field)
        return ended


def spoken(text: str, signature: Any = TWO, adapter: Any = None, **options: Any) -> tuple[FakeRun, Speech]:
    run: Any = FakeRun()
    speech = Speech(run, "self", 1, adapter or dspy.ChatAdapter(), signature, **options)
    for at in range(0, len(text), 7):
        speech.text(text[at : at + 7])
    speech.finish(text)
    return run, speech


def test_a_field_that_nobody_ended_gets_its_end() -> None:
    """A reply that goes on in the wrong place leaves its field open; what was said of it is all there is."""
    reply = '{"answer": "right", "reason": "be"cause"}'
    run, speech = spoken(reply, adapter=dspy.JSONAdapter())
    assert "reason" not in run.ends()
    said = run.heard()["reason"]
    before = len(run.events)
    speech.compare({"answer": "right", "reason": said})
    assert run.events[before:] == [Token("", "reason", "self", 1, True)]


def test_a_field_that_nobody_ended_gets_its_rest_without_a_restart() -> None:
    run, speech = spoken('{"answer": "right", "reason": "be"cause"}', adapter=dspy.JSONAdapter())
    said = run.heard()["reason"]
    before = len(run.events)
    speech.compare({"answer": "right", "reason": said + " of this"})
    assert run.events[before:] == [Token(" of this", "reason", "self", 1, True)]


def test_what_is_right_is_left_alone() -> None:
    run, speech = spoken(f"[[ ## answer ## ]]\nyes\n\n[[ ## reason ## ]]\nno{DONE}")
    before = len(run.events)
    speech.compare({"answer": "yes", "reason": "no"})
    assert run.events[before:] == []


@pytest.mark.parametrize(
    ("value", "more"),
    [
        ("other", [Restart("self", 1, "the adapter has repaired the reply", ("answer",)), "other"]),
        ("yes and more", [Restart("self", 1, "the adapter has repaired the reply", ("answer",)), "yes and more"]),
        (None, [Restart("self", 1, "the adapter has repaired the reply", ("answer",))]),
    ],
)
def test_a_field_that_has_ended_otherwise_restarts(value: Any, more: list[Any]) -> None:
    run, speech = spoken(f"[[ ## answer ## ]]\nyes\n\n[[ ## reason ## ]]\nno{DONE}")
    before = len(run.events)
    speech.compare({"answer": value, "reason": "no"})
    tokens = [Token(item, "answer", "self", 1, True) if isinstance(item, str) else item for item in more]
    assert run.events[before:] == tokens


def test_a_field_that_the_parser_did_not_find_is_said_whole() -> None:
    run, speech = spoken(f"[[ ## answer ## ]]\nyes{DONE}")
    before = len(run.events)
    speech.compare({"answer": "yes", "reason": "a default"})
    assert run.events[before:] == [Token("a default", "reason", "self", 1, True)]


def test_comparing_again_says_nothing_more() -> None:
    """An adapter that asks another compares after it: a field was given its last token twice."""
    run, speech = spoken(f"[[ ## answer ## ]]\nyes{DONE}")
    speech.compare({"answer": "other", "reason": "a default"})
    before = len(run.events)
    speech.compare({"answer": "other", "reason": "a default"})
    assert run.events[before:] == []
    speech.compare({"answer": "OTHER", "reason": None})
    assert run.events[before:] == [
        Restart("self", 1, "the adapter has repaired the reply", ("answer",)),
        Token("OTHER", "answer", "self", 1, True),
        Restart("self", 1, "the adapter has repaired the reply", ("reason",)),
    ]


def test_a_field_of_the_models_own_reasoning() -> None:
    run: Any = FakeRun()
    speech = Speech(run, "self", 1, dspy.ChatAdapter(), TWO, thinking="thoughts")
    speech.reasoning("hm, ")
    speech.text("[[ ## answer ## ]]\nyes")
    speech.reasoning("still")
    speech.restart("again")
    assert run.heard() == {}
    speech.reasoning("so")
    speech.text(f"[[ ## answer ## ]]\nno{DONE}")
    speech.finish("")
    assert run.heard() == {"thoughts": "so", "answer": "no"}
    assert run.ends() >= {"thoughts"}
    assert [e.text for e in run.events if isinstance(e, Reasoning)] == ["hm, ", "still", "so"]


texts = st.text(alphabet=st.sampled_from('ab \n"\\{}[]#:,é'), max_size=12)


@given(
    adapter=st.sampled_from([dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter]), reply=texts, one=texts, two=texts
)
@settings(max_examples=150, deadline=None)
def test_whatever_was_said_in_the_end_the_values_are_heard(adapter: Any, reply: str, one: str, two: str) -> None:
    heads = {
        dspy.ChatAdapter: "[[ ## answer ## ]]\n",
        dspy.JSONAdapter: '{"answer": "',
        dspy.XMLAdapter: "<answer>",
    }
    run, speech = spoken(heads[adapter] + reply, adapter=adapter())
    speech.compare({"answer": one, "reason": two})
    assert run.heard() == {"answer": one, "reason": two}
    assert run.ends() == {"answer", "reason"}
