"""JSONAdapter's and BAMLAdapter's format, at any chunking, against JSONAdapter, that is, json_repair."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.sansio.fields import FieldText, make_parser
from dspy_live.sansio.fields.base import FieldSpec

CASES: dict[str, tuple[str, dict[str, str]]] = {
    "as asked for": ('{\n  "a": "Hello there",\n  "b": "You"\n}', {"a": "Hello there", "b": "You"}),
    "in one line": ('{"a":"x","b":"y"}', {"a": "x", "b": "y"}),
    "white space everywhere": ('\n {\t"a" \r\n:\n "x" \n,\n\n"b"\t:"y"  } \n', {"a": "x", "b": "y"}),
    "white space inside": ('{"a": " \\n x  ", "b": "\\t\\u00a0"}', {"a": " \n x  ", "b": "\t\xa0"}),
    "another order, one missing": ('{"b": "y"}', {"b": "y"}),
    "blank": ('{"a": "", "b": " "}', {"a": "", "b": " "}),
    "empty object": ("{}", {}),
    "escapes": (
        r'{"a": "\"q\" \\ \/ \b\f\n\r\t", "b": "C:\\new\\\\table\\"}',
        {"a": '"q" \\ / \b\f\n\r\t', "b": "C:\\new\\\\table\\"},
    ),
    "numbered escapes": (r'{"a": "\u0041\u00e9\u4e2D\u2028", "b": "\\u0041"}', {"a": "Aé中\u2028", "b": "\\u0041"}),
    "surrogate pairs": (r'{"a": "\ud83d\ude00x\uD83D\uDE00", "b": "😀"}', {"a": "😀x😀", "b": "😀"}),
    "lone surrogates": (
        r'{"a": "\ud83d \ude00\ud83d\ud83d\ude00\ud83d\n", "b": "\ud83d"}',
        {"a": "\ud83d \ude00\ud83d😀\ud83d\n", "b": "\ud83d"},
    ),
    "raw lone surrogate before an escaped one": ('{"a": "\ud83d\\ude00", "b": "x"}', {"a": "\ud83d\ude00", "b": "x"}),
    "structure in a string": (
        '{"a": "}, \\"b\\": \\"no\\"} ]{[", "b": "a: , \\"a\\": "}',
        {"a": '}, "b": "no"} ]{[', "b": 'a: , "a": '},
    ),
    "escaped names": (r'{"\u0061": "x", "\"b": "n", "b\\": "n", "b": "y"}', {"a": "x", "b": "y"}),
    "a nested field of the same name": (
        '{"c": {"a": "no", "d": [{"a": "]}"}, {"b\\"": "no"}]}, "a": "x", "d": ["a", "b"], "b": "y"}',
        {"a": "x", "b": "y"},
    ),
    "a value that is a name": ('{"c": "a", "a": "b", "b": "a"}', {"a": "b", "b": "a"}),
    "constants": ('{"a": null, "b": true}', {"a": "None", "b": "True"}),
    "numbers": ('{"a": 12, "b": -1.50e3}', {"a": "12", "b": "-1500.0"}),
    "a number at the end": ('{"b": -0, "a":1E2}', {"b": "0", "a": "100.0"}),
    "containers": (
        '{"a": ["x", {"y": [1, null]}], "b": {"z": "}"}}',
        {"a": "['x', {'y': [1, None]}]", "b": "{'z': '}'}"},
    ),
    "Python's constants": ('{"a": True, "b": None}', {"a": "True", "b": "None"}),
    "fenced": ('```json\n{"a": "x", "b": "```"}\n```', {"a": "x", "b": "```"}),
    "text around": ('Sure, here (a, b):\n\n{"a": "x", "b": "y"}\n\nBye.', {"a": "x", "b": "y"}),
    "raw line ends": ('{"a": "one\ntwo, 3 four:\tfive", "b": "y\n\n"}', {"a": "one\ntwo, 3 four:\tfive", "b": "y"}),
    "bad escapes": (r'{"a": "\d+ \(x\) \u12 it\'s", "b": "\x41\e"}', {"a": r"\d+ \(x\) \u12 it's", "b": "A\\e"}),
    "bad escapes that a cut makes look right": (
        '{"a": "\n\\u00e9 \\u12", "b": "\\x4\\x41"}',
        {"a": "\né \\u12", "b": "\\x4A"},
    ),
    "backslashes after a raw line end": (
        '{"a": "\nC:\\\\new \\\\\\\\x", "b": "y\\\\"}',
        {"a": "\nC:\\new \\\\x", "b": "y\\"},
    ),
    "cut in a text": ('{"a": "x", "b": "some words, \\"and\\" ', {"a": "x", "b": 'some words, "and"'}),
    "cut in an escape": ('{"a": "x", "b": "y\\', {"a": "x", "b": "y\\"}),
    "cut in a numbered escape": ('{"a": "x", "b": "y\\u00', {"a": "x", "b": "y\\u00"}),
    "cut after a text": ('{"a": "x", "b": "y "', {"a": "x", "b": "y "}),
    "cut in a number": ('{"a": "x", "b": 12', {"a": "x", "b": "12"}),
    "cut in a name": ('{"a": "x", "b', {"a": "x"}),
}
CUT = [name for name in CASES if name.startswith("cut")]


@pytest.mark.parametrize("case", CASES)
def test_reads_what_dspy_reads(case: str, same: Callable[..., None]) -> None:
    reply, expected = CASES[case]
    same("json", reply, expected)


def test_baml_is_the_same_grammar(same: Callable[..., None]) -> None:
    same("baml", *CASES["fenced"])


@pytest.mark.parametrize("case", [name for name in CASES if name not in CUT and name != "empty object"])
def test_text_after_the_object_changes_nothing(case: str, same: Callable[..., None]) -> None:
    reply, expected = CASES[case]
    same("json", f'{reply}\n```\nI hope that "a": helps, it\'s done.', expected)


FRAGMENTS = [
    *("x", "a", "hello, world", '\\"', "\\\\", "\\n", "\\/", "\\f", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "\\ude00"),
    *(
        "}",
        "{",
        "[",
        "]",
        ",",
        ": ",
        " ",
        "  ",
        "\u2028",
        "\x7f",
        "it's",
        "é",
        "\ud83d",
        "😀",
        "\xa0",
        "`",
        "```",
        "//",
    ),
]
STRINGS = st.lists(st.sampled_from(FRAGMENTS) | st.text().map(lambda text: json.dumps(text)[1:-1]), max_size=8).map(
    lambda parts: f'"{"".join(parts)}"'
)
SPACES = st.sampled_from(["", "", " ", "\n  ", "\r\n"])
SCALARS = st.sampled_from(["0", "1.0", "-0", "1e5", "true", "false", "null", "12345678901234567890"])


def _object(values: st.SearchStrategy[str], names: list[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(st.sampled_from(names), values, SPACES, SPACES), max_size=4, unique_by=lambda m: m[0])
    return members.map(
        lambda found: "{" + ",".join(f'{one}"{name}"{two}:{one}{value}{two}' for name, value, one, two in found) + "}"
    )


VALUES = st.recursive(
    STRINGS | SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | _object(inner, ["a", "b", "\\u0061", "c d"])
    ),
    max_leaves=5,
)
AROUND = st.sampled_from([("", ""), ("```json\n", "\n```"), ("Sure (see below):\n", ""), ("", "\nDone."), (" \n", " ")])


@settings(max_examples=350, deadline=None)
@given(reply=_object(STRINGS | VALUES, ["a", "b", "c"]), around=AROUND, seed=st.integers(0, 99))
def test_any_json_reads_as_dspy_reads_it(
    reply: str, around: tuple[str, str], seed: int, reader: Any, truth: Any, cut: Any
) -> None:
    reply = around[0] + reply + around[1]
    expected = truth("json", reply)
    for chunks in ([reply], list(reply), cut(reply, seed), cut(reply, seed, 2)):
        reading = reader("json", chunks)
        assert reading.texts == expected
        assert reading.ended == set(expected)


@settings(max_examples=300, deadline=None)
@given(a=st.text(), b=st.text(), seed=st.integers(0, 99))
def test_dspys_own_text_is_read_as_dspy_reads_it(
    a: str, b: str, seed: int, reader: Any, truth: Any, cut: Any, formatted: Any
) -> None:
    reply = formatted("json", {"a": a, "b": b})
    assert reader("json", cut(reply, seed)).texts == truth("json", reply) == {"a": a, "b": b}


PROSE = [
    "the",
    "quick,",
    "fox;",
    "it's",
    '\\"so\\"',
    "(z)",
    "so:",
    "C++",
    "-",
    "`code`",
    "!",
    "?",
    ".",
    "1.",
    "\\n",
    "[y]",
]


@settings(max_examples=350, deadline=None)
@given(words=st.lists(st.sampled_from([*PROSE, "\n", "\n\n", "\t", "\\d"]), min_size=1), seed=st.integers(0, 99))
def test_json_that_needs_repair_is_read_as_far_as_it_is_sure(
    words: list[str], seed: int, reader: Any, truth: Any, cut: Any
) -> None:
    # The line end comes first: what was said before the reply is known to be no JSON can't be helped.
    reply = f'{{"a": "x\n{" ".join(words)}", "b": "y"}}'
    said = reader("json", cut(reply, seed)).texts.get("a", "")
    assert (truth("json", reply) or {}).get("a", "").startswith(said)


BROKEN = {
    "a quote that is not escaped": ('{"a": "he said "hi" to me", "b": "y"}', {"a": "he said"}),
    "single quotes": ("{'a': 'x', 'b': 'y'}", {}),
    "no quotes": ("{a: x, b: y}", {}),
    "no opening brace": ('"a": "x", "b": {"a": "no"}}', {}),
    "a comma too many": ('{"a": "x",, "b": "y"}', {"a": "x"}),
    "no colon": ('{"a" "x", "b": "y"}', {}),
    "a brace that is no object": ('{x} {"a": "x"}', {}),
    "a word that may be a name": ('{"a": "one\ntwo, 3", "b": "x\ny, z: 1"}', {"a": "one\ntwo, 3", "b": "x\ny"}),
    "a list of bad JSON in a text": ('{"a": [1, x], "b": "y"}', {}),
    "too many backslashes": ('{"a": "x \\\\\\d y", "b": "z"}', {"a": "x \\"}),
    "a name with a line end": ('{"a\n": "x", "b": "y"}', {}),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_guessed_value_is_not_streamed(case: str, reader: Any, all_chunkings: Any, truth: Any) -> None:
    reply, said = BROKEN[case]
    expected = truth("json", reply) or {}
    for chunks in all_chunkings(reply):
        reading = reader("json", chunks)
        assert reading.texts == said
        for name, text in said.items():
            assert expected[name].startswith(text)
            assert name not in reading.ended or text == expected[name]


def test_the_second_of_a_name_is_not_said_and_the_first_is_not_taken_back(reader: Any, truth: Any) -> None:
    reply = '{"a": "first", "a": "second", "b": "y"}'
    assert truth("json", reply) == {"a": "second", "b": "y"}
    assert reader("json", list(reply)).texts == {"a": "first", "b": "y"}


@pytest.mark.parametrize("nothing", ["\\" * 1000, ",\n" + " " * 1000, ",\n" + "w" * 1000])
def test_ambiguous_text_is_held_up_to_a_bound(nothing: str, reader: Any) -> None:
    reading = reader("json", ['{"a": "x\n', *nothing, 'y"}'])
    assert reading.texts == {"a": "x"}
    assert not reading.ended


class TestNothingWaitsThatNeedNot:
    def feed(self, *chunks: str) -> list[str]:
        parser = make_parser("json", (FieldSpec("a"), FieldSpec("b")))
        parser.feed('{"a": "')
        out = []
        for chunk in chunks:
            events = parser.feed(chunk)
            assert all(isinstance(event, FieldText) for event in events)
            out.append("|".join(event.text + "$" * event.last for event in events if isinstance(event, FieldText)))
        return out

    def test_words_are_out_with_their_tokens(self) -> None:
        assert self.feed("H", "el", " lo", " ", "x") == ["H", "el", " lo", "", " x"]

    def test_escapes_are_out_when_they_are_whole(self) -> None:
        assert self.feed("x\\", "n\\u00", "e9\\", '"') == ["x", "", "\né", '"']

    def test_half_a_character_waits_for_the_other(self) -> None:
        assert self.feed("\\ud83d", "\\u", "de00", "\\ud83d", "x") == ["", "", "😀", "", "\ud83dx"]

    def test_the_end_is_sure_when_the_next_member_is(self) -> None:
        assert self.feed("x", '"', ",", ' "b": "y', '"}') == ["x", "", "$", "y", "$"]


def test_a_token_with_escapes_that_are_whole_is_decoded_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = make_parser("json", [FieldSpec("a")])
    parser.feed('{"a": "So')
    with monkeypatch.context() as patch:
        patch.setattr(type(parser), "_STEPS", ())
        given = parser.feed("\\n\\n") + parser.feed('- \\"one\\"\\n') + parser.feed("\\u00e9 ") + parser.feed("x")
    assert "".join(event.text for event in given if isinstance(event, FieldText)) == '\n\n- "one"\né x'
    # Halves of an escape and of a character wait for what comes next.
    assert [parser.feed(text) for text in ("\\", "n", "\\ud834")] == [[], [], []]
    assert parser.feed("\\udd1e") == [FieldText("a", "\n𝄞")]
