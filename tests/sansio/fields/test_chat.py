"""ChatAdapter's format, at any chunking, against ChatAdapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.sansio.fields import FieldSpec, FieldText, make_parser

A, B, DONE = "[[ ## a ## ]]", "[[ ## b ## ]]", "[[ ## completed ## ]]"

CASES: dict[str, tuple[str, dict[str, str]]] = {
    "as asked for": (f"{A}\nHello there\n\n{B}\nYou\n\n{DONE}\n", {"a": "Hello there", "b": "You"}),
    "no end marker": (f"{A}\nHello\n{B}\nYou  \n", {"a": "Hello", "b": "You"}),
    "another order": (f"{B}\nYou\n{A}\nHello", {"b": "You", "a": "Hello"}),
    "text before the first header": (f"Sure!\n a: no\n{A}\nx\n{B}\ny", {"a": "x", "b": "y"}),
    "blank field": (f"{A}\n\n  \n{B}\ny\n{DONE}", {"a": "", "b": "y"}),
    "blank fields with nothing between": (f"{A}\n{B}", {"a": "", "b": ""}),
    "content on the header's line": (f"{A} x  \n y  \n{B}y", {"a": "x\n y", "b": "y"}),
    "white space alone on the header's line": (f"{A}   \t\nx\n{B}\t\ty", {"a": "x", "b": "y"}),
    "header within a line is text": (f"{A}\nsee {B} here\n{B}\ny", {"a": f"see {B} here", "b": "y"}),
    "the first of a name wins": (f"{A}\n1\n{B}\n2\n{A}\n3\n{B}\n4", {"a": "1", "b": "2"}),
    "an unknown header ends a field": (f"{A}\n1\n[[ ## c ## ]]\n2\n{B}\n3", {"a": "1", "b": "3"}),
    "an unknown word in another alphabet": (f"{A}\n1\n[[ ## größe_9 ## ]]\n2\n{B}\n3", {"a": "1", "b": "3"}),
    "nearly a header": (
        f"{A}\n[[ ## a ##]]\n[[ ##  a ## ]]\n[[ ## a b ## ]]\n[[ ## ## ]]\n[ [\n[[\n{B}\n[[ ## b ## ]",
        {"a": "[[ ## a ##]]\n[[ ##  a ## ]]\n[[ ## a b ## ]]\n[[ ## ## ]]\n[ [\n[[", "b": "[[ ## b ## ]"},
    ),
    "two headers on a line: the second is text": (f"{A} {B}\n{B}\ny", {"a": B, "b": "y"}),
    # DSPy cuts the header off a line that it has not stripped: as many characters of it stay.
    "indented header": (f"  {A}\nx\n\t {B} y", {"a": "]]\nx", "b": "]] y"}),
    "header indented further than it is long": (f"{' ' * 20}{A} x\n{B}y", {"a": f"{A} x", "b": "y"}),
    "every line end that Python knows": (
        f"{A}\r\n1\r2\x0b3\x0c4\x1c5\x1d6\x1e7\x858\u20289\u202910\r\n\r\n11\n\r12\r\n{B}\u2028y\x1fz\xa0",
        {"a": "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n\n11\n\n12", "b": "y\x1fz"},
    ),
    "white space at ends of lines": (f"{A}\n \n  x \t\n\n \xa0y\u3000\n \n{B}\ny", {"a": "x \t\n\n \xa0y", "b": "y"}),
    "half a character": (f"{A}\n\ud83d\ude00\ud83d\n{B}\n\ude00", {"a": "\ud83d\ude00\ud83d", "b": "\ude00"}),
    "brackets": (f"{A}\n[1, [2]]\n[[3]]\n]]\n{B}\n[[ ## ", {"a": "[1, [2]]\n[[3]]\n]]", "b": "[[ ##"}),
    "one field only": (f"{B}\ny", {"b": "y"}),
    "no header": ("Hello there", {}),
    "empty": ("", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_reads_what_dspy_reads(case: str, same: Callable[..., None]) -> None:
    reply, expected = CASES[case]
    same("chat", reply, expected)


@pytest.mark.parametrize("case", CASES)
def test_text_after_the_end_marker_changes_nothing(case: str, same: Callable[..., None]) -> None:
    reply, expected = CASES[case]
    same("chat", f"{reply}\n{DONE}\nBye [[ ## \n x", expected)


HEADERS = [A, B, DONE, f"\n{A}\n", f"\n{B}\n", f" \n\t{B}", "[[ ## é ## ]]", "[[ ## a ## ]"]
PIECES = ["[[", "[[ ##", " ## ]]", "]]", "[", "x", "a", "é_", "##", "hello world", "\ud83d", "\ude00", '"', "}", "</a>"]
SPACES = ["\n", "\r", "\r\n", " ", "\t", "\u2028", "\x0b", "\x85", "\x1f", "\xa0"]
FRAGMENTS = st.sampled_from(HEADERS + PIECES + SPACES)
REPLIES = st.lists(FRAGMENTS | st.text(max_size=4), max_size=16).map("".join)


@settings(max_examples=800, deadline=None)
@given(reply=REPLIES, seed=st.integers(0, 99))
def test_any_text_reads_as_dspy_reads_it(reply: str, seed: int, reader: Any, truth: Any, cut: Any) -> None:
    expected = truth("chat", reply)
    for chunks in ([reply], list(reply), cut(reply, seed), cut(reply, seed, 2)):
        reading = reader("chat", chunks)
        assert reading.texts == expected
        assert reading.ended == set(expected)


@settings(max_examples=300, deadline=None)
@given(a=st.text(), b=st.lists(FRAGMENTS).map("".join), seed=st.integers(0, 99))
def test_dspys_own_text_is_read_as_dspy_reads_it(
    a: str, b: str, seed: int, reader: Any, truth: Any, cut: Any, formatted: Any
) -> None:
    reply = formatted("chat", {"a": a, "b": b})
    assert reader("chat", cut(reply, seed)).texts == truth("chat", reply)


class TestNothingWaitsThatNeedNot:
    """The first text matters: what can't change any more is out at once."""

    def feed(self, *chunks: str) -> list[list[tuple[str, str, bool]]]:
        parser = make_parser("chat", (FieldSpec("a"), FieldSpec("b")))
        parser.feed(f"{A}\n")
        out = []
        for chunk in chunks:
            events = parser.feed(chunk)
            assert all(isinstance(event, FieldText) for event in events)
            out.append([(event.field, event.text, event.last) for event in events if isinstance(event, FieldText)])
        return out

    def test_a_word_is_out_with_its_token(self) -> None:
        assert self.feed("H", "el", " lo") == [[("a", "H", False)], [("a", "el", False)], [("a", " lo", False)]]

    def test_white_space_comes_with_the_next_word(self) -> None:
        assert self.feed("x ", "\n\n", "y") == [[("a", "x", False)], [], [("a", " \n\ny", False)]]

    def test_a_bracket_waits_only_at_the_start_of_a_line(self) -> None:
        assert self.feed("x [[ ## ", "y\n", "[", "[", "z") == [
            [("a", "x [[ ##", False)],
            [("a", " y", False)],
            [],
            [],
            [("a", "\n[[z", False)],
        ]

    def test_a_field_ends_with_its_header(self) -> None:
        assert self.feed("x\n[[ ## b ## ", "]", "]", "y") == [
            [("a", "x", False)],
            [],
            [("a", "", True)],
            [("b", "y", False)],
        ]

    def test_one_event_a_field_however_much_comes_at_once(self) -> None:
        assert self.feed(f"1\n2\n\n3\n{B}\n4\n5\n") == [[("a", "1\n2\n\n3", True), ("b", "4\n5", False)]]


def test_content_with_line_feeds_is_not_taken_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every paragraph and every list has them. Only a bracket can begin a header."""
    parser = make_parser("chat", [FieldSpec("a")])
    parser.feed(f"{A}\nSome")
    with monkeypatch.context() as patch:
        patch.setattr(type(parser), "_read", None)
        tokens = [" words:", "\n\n", "- one\n", "- two\n\tindented ", "\n", "  ", "end"]
        given = [event.text for token in tokens for event in parser.feed(token) if isinstance(event, FieldText)]
    assert "".join(given) == "".join(tokens)
    assert parser.feed("\n[") + parser.feed("[ ## b ## ]]\n") == [FieldText("a", "", True)]
