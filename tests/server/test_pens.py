"""Text that a pen writes and text that is pushed as events can't be told apart by anybody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from itertools import repeat
from random import Random
from typing import Any

import dspy
import pytest
from tests.server.pen_doors import Door, Wire, WithoutPens

from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import Custom, Event, Reasoning, Restart, TextDelta, Token, Usage
from dspy_live.core.sink import Sink, pen_of
from dspy_live.server.encoders.events import sse
from dspy_live.server.encoders.sinks import StreamSink
from dspy_live.server.runs.totals import RunTotals

ADAPTERS = (dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter)


def reply(adapter: type, reason: str, answer: str) -> str:
    if adapter is dspy.ChatAdapter:
        return (
            f"[[ ## reason ## ]]\n{reason}\n\n[[ ## count ## ]]\n7\n\n[[ ## answer ## ]]\n{answer}\n\n"
            '[[ ## sources ## ]]\n["a", "b"]\n\n[[ ## completed ## ]]'
        )
    if adapter is dspy.XMLAdapter:
        return f"<reason>{reason}</reason><count>7</count><answer>{answer}</answer><sources>[1]</sources>"
    return f'{{"reason": "{reason}", "count": 7, "answer": "{answer}", "sources": ["a", "b"]}}'


PLAIN = ["plain", " words", " of", " text", ".", " ", "\n", "\n\n", "\t", "é", "日本", "%b", "%", "🙂"]
ODD = ['\\"', "\\n", "\\u00e9", "\\ud83d", "\ud83d", "\ude00", "[[", "[[ ## ", "<b>", "&amp;", "</", '"', "{", "\r\n"]
OTHERS = ("say from a thread", "restart", "reason", "usage", "emit", "emit from a thread", "let go", "silence")


def words(random: Random) -> str:
    """Text that is plain for the most part."""
    plain = random.choice((1.0, 0.9, 0.5))
    return "".join(random.choice(PLAIN if random.random() < plain else ODD) for _ in range(random.randrange(60)))


def script_of(random: Random, calls: int) -> list[tuple[int, str]]:
    """For each step, the number of the LM call and what comes: its next words for the most part."""
    quiet = random.choice((0.98, 0.9, 0.7))
    which = range(calls)
    return [
        (random.choice(which), "say" if random.random() < quiet else random.choice(OTHERS))
        for _ in range(random.randrange(150))
    ]


def pieces_of(text: str, sizes: Iterator[int]) -> list[str]:
    pieces: list[str] = []
    at = 0
    while at < len(text):
        size = next(sizes)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def in_thread(push: Callable[[Event], object], event: Event) -> None:
    thread = threading.Thread(target=push, args=(event,))
    thread.start()
    thread.join()


def event_of(what: str, number: int) -> Event:
    predictor = f"p%{number}"
    events: dict[str, Event] = {
        "restart": Restart("", 0, "again"),
        "reason": Reasoning("hm", "", 0),
        "usage": Usage("m", predictor, number, 1, 2, 3),
        "emit": Custom("note", {"n": number}),
        "emit from a thread": Custom("note", "thread"),
        "silence": Token("", "reason", predictor, number, True),
    }
    return events[what]


async def played(kind: str, seed: int, pens: bool) -> Any:
    """Play what several LM calls tell, made from ``seed``, and return all that can be seen of it."""
    random = Random(seed)
    calls = [(random.choice(ADAPTERS), words(random), words(random)) for _ in range(random.randint(1, 2))]
    script = script_of(random, len(calls))
    door = Door(kind, frozenset(random.sample(range(1, 100), random.choice((0, 3, 30)))), pens)
    streams = [door.lm_call(number, adapter()) for number, (adapter, *_) in enumerate(calls, 1)]
    sizes = iter(lambda: random.randint(1, 9), 0)
    left = [pieces_of(reply(*call), sizes) for call in calls]
    said = ["".join(pieces) for pieces in left]
    rest = [(which, "say") for which, text in enumerate(said) for _ in text]
    for which, what in script + rest:
        stream, pieces = streams[which], left[which]
        if what == "let go":
            await asyncio.sleep(0)
        elif what == "say" and pieces:
            door.do(stream.push, TextDelta(pieces.pop(0)))
        elif what == "say from a thread" and pieces:
            in_thread(stream.push, TextDelta(pieces.pop(0)))
        elif what == "emit from a thread":
            in_thread(door.run.push, event_of(what, which + 1))
        elif not what.startswith("say"):
            to: Sink = door.run if what in ("emit", "silence") else stream
            door.do(to.push, event_of(what, which + 1))
            if what == "restart":
                left[which] = pieces_of(said[which], sizes)
    for stream, text, (_, reason, answer) in zip(streams, said, calls, strict=True):
        door.do(stream.finish, text)
        door.do(stream.compare, {"reason": reason, "answer": answer[:-1]})
    seen = await door.close()
    door.do(streams[0].push, TextDelta("too late"))
    return seen


@pytest.mark.parametrize("kind", ["sse", "socket", "events"])
def test_a_pen_is_not_to_be_told_from_events(kind: str) -> None:
    for seed in range(150):
        with_pens, without = (asyncio.run(played(kind, seed, pens)) for pens in (True, False))
        for ours, theirs in zip(with_pens, without, strict=True):
            assert ours == theirs, f"with seed {seed}"


class Counted(StreamSink):
    """Counts what it is pushed."""

    pushed = 0

    def push(self, event: Event) -> bool:
        Counted.pushed += 1
        return super().push(event)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_plain_text_makes_no_events(adapter: Any) -> None:
    """A field costs an event for its beginning and one for its end, however long it is."""

    async def pushed(words: int) -> tuple[int, int]:
        door, Counted.pushed = Door("sse", frozenset(), True), 0
        door.run._sink = Counted(door.encoder, door.wire, door.failures.append)
        stream = door.lm_call(1, adapter())
        for piece in pieces_of(reply(adapter, "because" + " words" * words, "so" + " words" * words), repeat(6)):
            stream.push(TextDelta(piece))
        await door.close()
        return Counted.pushed, len(door.wire.frames)

    (few, some_frames), (many, more_frames) = asyncio.run(pushed(20)), asyncio.run(pushed(200))
    assert few == many
    assert more_frames - some_frames == 2 * (200 - 20)


def test_a_sink_that_hands_on_what_it_does_not_know_sees_every_token() -> None:
    """A layer's sink with a ``__getattr__`` would otherwise give its inner sink's pens away."""
    totals, wire = RunTotals(), Wire()
    inner = StreamSink(sse("run", totals), wire, lambda exc: None)
    seen: list[Event] = []

    class Seeing(WithoutPens):
        def push(self, event: Event) -> bool:
            seen.append(event)
            return super().push(event)

    token = Token("a", "answer", "self", 1)
    sink: Sink = Seeing(inner)
    sink.push(token)
    assert pen_of(sink, token)("b")
    assert seen == [token, Token("b", "answer", "self", 1)]
    assert len(wire.frames) == 2


def test_a_pen_of_a_complete_field_fails_as_a_token_does() -> None:
    async def write() -> None:
        door = Door("sse", frozenset(), True)
        token = Token("a", "answer", "self", 1)
        door.run.push(token)
        pen = pen_of(door.run, token)
        assert pen("b")
        door.run.push(Token("", "answer", "self", 1, True))
        with pytest.raises(LifecycleError, match="'answer' of LM call 1, which was complete"):
            pen("c")
        door.run.push(Restart("self", 1, "again"))
        assert pen("d")
        await door.close()
        assert pen("e")
        assert [frame.count(b'"text":"') for frame in door.wire.frames] == [0, 1, 1, 1, 0, 1]

    asyncio.run(write())


def test_a_pen_that_another_thread_asks_for_leaves_the_sink_alone() -> None:
    """The token is on its way to the loop then, and the sink knows nothing of it yet."""

    async def write() -> None:
        door = Door("sse", frozenset(), True)
        token = Token("a", "answer", "self", 1)

        def speak(event: Event) -> None:
            door.run.push(event)
            pen_of(door.run, token)("b")

        in_thread(speak, token)
        assert door.totals.first is None
        assert len(door.wire.frames) == 1
        await asyncio.sleep(0)
        assert [frame.count(b'"text":"') for frame in door.wire.frames] == [0, 1, 1]
        await door.close()

    asyncio.run(write())
