"""Server-sent events: an encoder and a decoder that agree with each other and with the WHATWG's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.sansio.lines import LineSplitter, LineTooLong
from dspy_live.sansio.sse import EventDecoder, EventTooLarge, ServerEvent, comment, encode, retry


def decode(data: bytes, *cuts: int) -> list[ServerEvent]:
    decoder = EventDecoder()
    out: list[ServerEvent] = []
    for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        out += decoder.feed(data[start:end])
    return out


STREAM = (
    b"\xef\xbb\xbf: hello\r\nid: 7\r\nevent: token\r\ndata: one\r\ndata:two\r\n\r\n"
    b"data: caf\xc3\xa9\n\nevent: empty\n\nid: bad\x00id\ndata\n\nretry: 250\rdata:  two spaces\r\rdata: unfinished"
)
EVENTS = [
    ServerEvent("one\ntwo", "token", "7"),
    ServerEvent("café", "message", "7"),
    ServerEvent("", "message", "7"),
    ServerEvent(" two spaces", "message", "7"),
]


def test_the_standards_rules_in_one_stream() -> None:
    decoder = EventDecoder()
    assert decoder.feed(STREAM) == EVENTS
    assert decoder.reconnect == 250
    assert decoder.last_event_id == "7"


def test_at_every_split_point() -> None:
    for at in range(len(STREAM) + 1):
        assert decode(STREAM, at) == EVENTS, at
    for at in range(len(STREAM) - 2):
        assert decode(STREAM, at, at + 1, at + 2) == EVENTS, at
    assert decode(STREAM, *range(1, len(STREAM))) == EVENTS


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_line_end_gives_the_same(end: bytes) -> None:
    data = end.join([b"event: a", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])
    assert decode(data, *range(1, len(data))) == [ServerEvent("1\n2", "a"), ServerEvent("3")]


def test_an_id_stays_until_another_comes_and_an_empty_one_clears_it() -> None:
    events = decode(b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n")
    assert [e.id for e in events] == ["1", "1", ""]


def test_an_id_counts_only_from_its_blank_line_on() -> None:
    decoder = EventDecoder()
    decoder.feed(b"id: 5\ndata: a\n")
    assert decoder.last_event_id == ""
    decoder.feed(b"\n")
    assert decoder.last_event_id == "5"


def test_unknown_fields_comments_and_bad_retry_are_ignored() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b": x\nretry: 1x\nfoo: bar\ndataset: 1\n\n" + comment("beat") + comment()) == []
    assert decoder.reconnect is None


text = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(st.none() | text, st.binary(max_size=40), st.none() | text), max_size=5), st.data())
def test_encoded_events_are_decoded(items: list[tuple[str | None, bytes, str | None]], data: st.DataObject) -> None:
    wire = b"".join(encode(*item) for item in items)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    events = decode(wire, *cuts)
    last = ""
    assert len(events) == len(items)
    for event, (name, payload, ident) in zip(events, items, strict=True):
        last = last if ident is None else ident
        expected = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode("utf-8", "replace")
        assert (event.data, event.event, event.id) == (expected, name or "message", last)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_any_bytes_give_the_same_events_at_any_chunking(wire: bytes, cuts: list[int]) -> None:
    assert decode(wire, *sorted(min(c, len(wire)) for c in cuts)) == decode(wire)


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0"])
def test_a_field_that_would_break_the_stream_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="line end or NUL"):
        encode(bad, b"")
    with pytest.raises(ValueError, match="line end or NUL"):
        encode(None, b"", bad)
    with pytest.raises(ValueError, match="line end or NUL"):
        comment(bad)


def test_retry_is_a_field_of_its_own() -> None:
    decoder = EventDecoder()
    assert decoder.feed(retry(1500)) == []
    assert decoder.reconnect == 1500
    with pytest.raises(ValueError, match="at least 0"):
        retry(-1)


def test_an_event_without_end_is_bounded_in_lines_and_in_one_line() -> None:
    decoder = EventDecoder(limit=100)
    for _ in range(100):
        decoder.feed(b"data: x\n")
    with pytest.raises(EventTooLarge, match="100 bytes"):
        decoder.feed(b"data: x\n")
    decoder = EventDecoder(limit=100)
    for _ in range(100):
        decoder.feed(b"x")
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x")


def test_small_events_never_add_up_to_the_limit() -> None:
    decoder = EventDecoder(limit=100)
    assert sum(len(decoder.feed(b"data: 0123456789\n\n")) for _ in range(100)) == 100


def test_a_long_line_in_many_pieces_is_joined_once() -> None:
    splitter = LineSplitter(limit=10_000_000)
    for _ in range(100_000):
        assert splitter.feed(b"0123456789") == []
    assert splitter.size == 1_000_000
    (line,) = splitter.feed(b"\n")
    assert len(line) == 1_000_000
    assert splitter.size == 0


def test_the_splitter_says_when_a_line_is_too_long() -> None:
    splitter = LineSplitter(limit=10)
    splitter.feed(b"0123456789")
    with pytest.raises(LineTooLong):
        splitter.feed(b"0")
