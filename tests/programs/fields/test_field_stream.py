"""One LM call's words: what was said, what the adapter has read, and what is said to make the two one."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.core.call import Call, Origin
from dspy_live.core.errors import Cancelled, Stop
from dspy_live.core.events import Event, Partial, Reasoning, Restart, TextDelta, Token, Usage
from dspy_live.programs.fields.field_stream import CallUsageSink, FieldStream
from dspy_live.programs.fields.formats import reading_of
from dspy_live.sansio.lifecycle import LM, Lifecycle

TWO = dspy.Signature("question -> answer, reason")
DONE = "\n\n[[ ## completed ## ]]"
SELF = Origin("run", "P", "self", (), 1)


class FakeRun:
    """Takes the events of a run, in the order that is allowed. Full where the test says so."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.call = Call({})
        self.has_room = True
        self.waited = 0
        self.stopped: Cancelled | None = None
        self.lifecycle = Lifecycle(LM)

    def push(self, event: Event) -> bool:
        self.lifecycle.check(event)
        self.events.append(event)
        return self.has_room

    async def room(self) -> None:
        self.waited += 1

    def check(self) -> None:
        if self.stopped is not None:
            raise Stop(self.stopped)

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


def stream_of(signature: Any = TWO, adapter: Any = None, **options: Any) -> tuple[FakeRun, FieldStream]:
    run: Any = FakeRun()
    return run, FieldStream(run, SELF, reading_of(adapter or dspy.ChatAdapter(), signature), **options)


def spoken(text: str, signature: Any = TWO, adapter: Any = None, **options: Any) -> tuple[FakeRun, FieldStream]:
    run, stream = stream_of(signature, adapter, **options)
    for at in range(0, len(text), 7):
        stream.push(TextDelta(text[at : at + 7]))
    stream.finish(text)
    return run, stream


def test_an_unended_field_gets_its_end() -> None:
    """A reply that goes on in the wrong place leaves its field open; what was said of it is all there is."""
    reply = '{"answer": "right", "reason": "be"cause"}'
    run, stream = spoken(reply, adapter=dspy.JSONAdapter())
    assert "reason" not in run.ends()
    said = run.heard()["reason"]
    before = len(run.events)
    stream.compare({"answer": "right", "reason": said})
    assert run.events[before:] == [Token("", "reason", "self", 1, True)]


def test_an_unended_field_gets_its_rest_without_a_restart() -> None:
    run, stream = spoken('{"answer": "right", "reason": "be"cause"}', adapter=dspy.JSONAdapter())
    said = run.heard()["reason"]
    before = len(run.events)
    stream.compare({"answer": "right", "reason": said + " of this"})
    assert run.events[before:] == [Token(" of this", "reason", "self", 1, True)]


def test_a_field_that_was_streamed_right_gets_no_restart() -> None:
    run, stream = spoken(f"[[ ## answer ## ]]\nyes\n\n[[ ## reason ## ]]\nno{DONE}")
    before = len(run.events)
    stream.compare({"answer": "yes", "reason": "no"})
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
    run, stream = spoken(f"[[ ## answer ## ]]\nyes\n\n[[ ## reason ## ]]\nno{DONE}")
    before = len(run.events)
    stream.compare({"answer": value, "reason": "no"})
    tokens = [Token(item, "answer", "self", 1, True) if isinstance(item, str) else item for item in more]
    assert run.events[before:] == tokens


def test_a_field_that_the_parser_did_not_find_is_said_whole() -> None:
    run, stream = spoken(f"[[ ## answer ## ]]\nyes{DONE}")
    before = len(run.events)
    stream.compare({"answer": "yes", "reason": "a default"})
    assert run.events[before:] == [Token("a default", "reason", "self", 1, True)]


def test_comparing_again_says_nothing_more() -> None:
    """An adapter that asks another compares after it: a field was given its last token twice."""
    run, stream = spoken(f"[[ ## answer ## ]]\nyes{DONE}")
    stream.compare({"answer": "other", "reason": "a default"})
    before = len(run.events)
    stream.compare({"answer": "other", "reason": "a default"})
    assert run.events[before:] == []
    stream.compare({"answer": "OTHER", "reason": None})
    assert run.events[before:] == [
        Restart("self", 1, "the adapter has repaired the reply", ("answer",)),
        Token("OTHER", "answer", "self", 1, True),
        Restart("self", 1, "the adapter has repaired the reply", ("reason",)),
    ]


def thought(text: str) -> Reasoning:
    return Reasoning(text, "", 0)


def test_a_field_of_the_models_own_reasoning() -> None:
    run, stream = stream_of(thinking="thoughts")
    stream.push(thought("hm, "))
    stream.push(TextDelta("[[ ## answer ## ]]\nyes"))
    stream.push(thought("still"))
    stream.push(Restart("", 0, "again"))
    assert run.heard() == {}
    stream.push(thought("so"))
    stream.push(TextDelta(f"[[ ## answer ## ]]\nno{DONE}"))
    stream.finish("")
    assert run.heard() == {"thoughts": "so", "answer": "no"}
    assert run.ends() >= {"thoughts"}
    assert [e.text for e in run.events if isinstance(e, Reasoning)] == ["hm, ", "still", "so"]


def test_words_and_usage_get_the_predictor_and_the_number_of_the_lm_call() -> None:
    run, stream = stream_of(dspy.Signature("question -> score: int"))
    stream.push(thought("hm"))
    stream.push(TextDelta(f"[[ ## score ## ]]\n7{DONE}"))
    stream.push(Usage("m", "of another run", 9, total_tokens=3))
    assert run.events == [
        Reasoning("hm", "self", 1),
        Partial(7, "score", "self", 1, True),
        Usage("m", "self", 1, total_tokens=3),
    ]


def test_an_empty_word_says_nothing_and_takes_nothing_back() -> None:
    run, stream = stream_of()
    assert stream.push(TextDelta(""))
    assert stream.push(thought(""))
    assert stream.push(Restart("", 0, "again"))
    assert run.events == []


def test_without_a_stream_the_usage_alone_passes() -> None:
    run: Any = FakeRun()
    sink = CallUsageSink(run, SELF)
    for event in (TextDelta("[[ ## answer ## ]]\nyes"), thought("hm"), Restart("", 0, "x"), Usage("m", "", 0)):
        assert sink.push(event)
    assert run.events == [Usage("m", "self", 1)]


def test_a_full_run_pauses_the_source() -> None:
    run, stream = stream_of()
    run.has_room = False
    assert stream.push(TextDelta("[[ ## ans")), "nothing was said yet"
    assert not stream.push(TextDelta("wer ## ]]\nyes and no"))
    assert not stream.push(thought("hm"))
    asyncio.run(stream.room())
    assert run.waited == 1


def test_a_predictor_that_asks_again_takes_back_its_words() -> None:
    async def main() -> None:
        run, first = stream_of()
        silent, second, third = (
            FieldStream(first._run, Origin("run", "P", "self", (), number), reading_of(dspy.ChatAdapter(), TWO))
            for number in (2, 3, 4)
        )
        first.push(TextDelta("[[ ## answer ## ]]\nyes, it is"))
        silent.replace(first)
        second.replace(silent)
        second.push(TextDelta("[[ ## answer ## ]]\nno, it is"))
        third.replace(second)
        reason = "the predictor asks the LM again"
        assert [e for e in run.events if isinstance(e, Restart)] == [
            Restart("self", 1, reason),
            Restart("self", 3, reason),
        ]

    asyncio.run(main())


texts = st.text(alphabet=st.sampled_from('ab \n"\\{}[]#:,é'), max_size=12)


@given(
    adapter=st.sampled_from([dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter]), reply=texts, one=texts, two=texts
)
@settings(max_examples=150, deadline=None)
def test_after_any_stream_the_text_ends_as_the_values(adapter: Any, reply: str, one: str, two: str) -> None:
    heads = {
        dspy.ChatAdapter: "[[ ## answer ## ]]\n",
        dspy.JSONAdapter: '{"answer": "',
        dspy.XMLAdapter: "<answer>",
    }
    run, stream = spoken(heads[adapter] + reply, adapter=adapter())
    stream.compare({"answer": one, "reason": two})
    assert run.heard() == {"answer": one, "reason": two}
    assert run.ends() == {"answer", "reason"}
