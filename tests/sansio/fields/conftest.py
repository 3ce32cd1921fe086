"""Reads a reply with our parser, in many chunkings, and with DSPy's own adapter."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy
import pytest
from dspy.adapters import ChatAdapter, JSONAdapter, XMLAdapter
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.utils.exceptions import AdapterParseError

from dspy_live.sansio.fields import FieldSpec, FieldText, FieldValue, ReplyFormat, make_parser

SIGNATURE = dspy.Signature("question -> a: str, b: str")
ADAPTERS = {"chat": ChatAdapter(), "json": JSONAdapter(), "xml": XMLAdapter(), "baml": BAMLAdapter()}
TEXTS = (FieldSpec("a"), FieldSpec("b"))


@dataclass
class Reading:
    """What a parser gave: the joined texts, the fields that it has ended, each typed field's values."""

    texts: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    values: dict[str, list[FieldValue]] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)


def read(grammar: ReplyFormat, chunks: Iterable[str], fields: Sequence[FieldSpec] = TEXTS) -> Reading:
    """Feed ``chunks`` and check that the events are legal."""
    kinds = {spec.name: spec.kind for spec in fields}
    parser = make_parser(grammar, fields)
    reading = Reading()

    def take(events: list[Any]) -> None:
        for event in events:
            assert event.field not in reading.ended, f"{event} after the end of its field"
            if isinstance(event, FieldText):
                assert kinds[event.field] == "text"
                assert event.text or event.last, "an event that says nothing"
                reading.texts[event.field] = reading.texts.get(event.field, "") + event.text
                ended = event.last
            else:
                assert isinstance(event, FieldValue)
                assert kinds[event.field] != "text"
                reading.values.setdefault(event.field, []).append(event)
                ended = event.final
            if ended:
                reading.ended.add(event.field)
        reading.events += events

    for chunk in chunks:
        take(parser.feed(chunk))
    take(parser.finish())
    assert {name: text for name, text in parser.texts().items() if text or name in reading.texts} == reading.texts
    assert parser.ended() == {name for name in reading.ended if kinds[name] == "text"}
    return reading


def chunkings(reply: str) -> Iterator[list[str]]:
    """Whole, character by character, cut in two at every place, and in tokens of 1 to 7 characters."""
    yield [reply]
    yield list(reply)
    for at in range(len(reply) + 1):
        yield [reply[:at], reply[at:]]
    yield tokens(reply, 1)


def tokens(reply: str, seed: int, longest: int = 7) -> list[str]:
    """Cut ``reply`` at random."""
    rng, at, cut = random.Random(seed), 0, []
    while at < len(reply):
        size = rng.randint(1, longest)
        cut.append(reply[at : at + size])
        at += size
    return cut


def dspy_texts(grammar: ReplyFormat, reply: str) -> dict[str, str] | None:
    """The fields as DSPy's adapter reads them, those that it found; ``None`` where it reads nothing."""
    try:
        found = ADAPTERS[grammar].parse(SIGNATURE, reply)
    except AdapterParseError as exc:
        return exc.parsed_result
    except (UnicodeEncodeError, RecursionError, ValueError):
        return None
    assert isinstance(found, dict)
    return found


def same_as_dspy(grammar: ReplyFormat, reply: str, expected: dict[str, str] | None = None) -> None:
    """Check a reply in every chunking against DSPy's adapter, and against ``expected`` where it is given."""
    truth = dspy_texts(grammar, reply)
    if expected is not None:
        assert truth == expected, "the case itself is wrong"
    for chunks in chunkings(reply):
        reading = read(grammar, chunks)
        assert reading.texts == truth, chunks
        assert reading.ended == set(truth or ()), chunks


@pytest.fixture(scope="session")
def reader() -> Callable[..., Reading]:
    return read


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    return same_as_dspy


@pytest.fixture(scope="session")
def truth() -> Callable[[ReplyFormat, str], dict[str, str] | None]:
    return dspy_texts


@pytest.fixture(scope="session")
def cut() -> Callable[..., list[str]]:
    return tokens


@pytest.fixture(scope="session")
def all_chunkings() -> Callable[[str], Iterator[list[str]]]:
    return chunkings


@pytest.fixture(scope="session")
def formatted() -> Callable[[ReplyFormat, dict[str, str]], str]:
    """Writes a reply as DSPy's adapter writes it in a demo."""

    def write(grammar: ReplyFormat, outputs: dict[str, str]) -> str:
        text = ADAPTERS[grammar].format_assistant_message_content(SIGNATURE, outputs)
        assert isinstance(text, str)
        return text

    return write
