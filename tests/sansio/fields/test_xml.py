"""XMLAdapter's format, at any chunking, against XMLAdapter, that is, ElementTree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.sansio.fields import FieldSpec, FieldText, make_parser

CASES: dict[str, tuple[str, dict[str, str]]] = {
    "as asked for": ("<a>\nHello there\n</a>\n\n<b>\nYou\n</b>", {"a": "Hello there", "b": "You"}),
    "in one line": ("<a>x</a><b>y</b>", {"a": "x", "b": "y"}),
    "another order, text between": ("Sure:\n<b> y </b> and ]] > then <a>x</a> Bye.", {"b": "y", "a": "x"}),
    "blank": ("<a>\n\n</a><b></b>", {"a": "", "b": ""}),
    "empty element": ("<a/><b />", {"a": "", "b": ""}),
    "white space": ("<a>\n\n  x \n\n y\xa0\u3000\n</a><b>\ty\t</b>", {"a": "x \n\n y", "b": "y"}),
    "line ends": ("<a>1\r\n2\r3\n\r4\u20285\x856</a><b>\r\ny\r\n</b>", {"a": "1\n2\n3\n\n4\u20285\x856", "b": "y"}),
    "entities": (
        "<a>&lt;i&gt; &amp;amp; &quot;&apos;</a><b>&#65;&#x1F600;&#xe9;&#32; </b>",
        {"a": "<i> &amp; \"'", "b": "A😀é"},
    ),
    "entities for white space": ("<a>&#32;x&#10;</a><b>&#160;y&#x2028;z</b>", {"a": "x", "b": "y\u2028z"}),
    "CDATA": (
        "<a><![CDATA[<i> & </a> ]] > ]]> x</a><b> y<![CDATA[ ]]></b>",
        {"a": "<i> & </a> ]] >  x", "b": "y"},
    ),
    "comments": ("<!-- <a>no</a> --><a>x<!-- > </a> -->y</a><b><!----> y</b>", {"a": "xy", "b": "y"}),
    "processing instruction": ("<a>x<?php echo '</a>' ?> y</a><b>y</b>", {"a": "x y", "b": "y"}),
    "attributes, spaces in tags": ("<a class='x>y' id=\"1\" >x</a ><b\n>y</b\t>", {"a": "x", "b": "y"}),
    "unknown element": ("<c><a>no</a></c><a>x</a><d/><b>y</b>", {"a": "x", "b": "y"}),
    "an entry is what its key says": ("<entry key='a'>x</entry><entry>no</entry><b>y</b>", {"a": "x", "b": "y"}),
    "greater-than and brackets": ("<a>x > y ]] ] z</a><b>]</b>", {"a": "x > y ]] ] z", "b": "]"}),
    "children are written out": (
        '<a>see <i k=\'1"2\' j="&lt;">this<br></br></i> &amp; &gt; that  </a><b>y</b>',
        {"a": 'see <i k="1&quot;2" j="&lt;">this<br /></i> &amp; &gt; that  ', "b": "y"},
    ),
    "a child first, after white space": (
        "<a>\n  <i>x</i>\n</a><b> <br/> </b>",
        {"a": "\n  <i>x</i>\n", "b": " <br /> "},
    ),
    "a child of the field's own name": ("<a>x<a>y</a></a><b>y</b>", {"a": "x<a>y</a>", "b": "y"}),
    "a comment in a child": ("<a>x<i>1<!-- no -->2</i><!-- no --></a><b>y</b>", {"a": "x<i>12</i>", "b": "y"}),
    "a child with a namespace": (
        '<a>x<i xmlns="urn:x" c="1"><j/></i></a><b>y</b>',
        {"a": 'x<ns0:i xmlns:ns0="urn:x" c="1"><ns0:j /></ns0:i>', "b": "y"},
    ),
    "one field only": ("<b>y</b>", {"b": "y"}),
    "no element": ("Hello there", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_reads_what_dspy_reads(case: str, same: Callable[..., None]) -> None:
    reply, expected = CASES[case]
    same("xml", reply, expected)


@pytest.mark.parametrize("case", CASES)
def test_text_after_the_fields_changes_nothing(case: str, same: Callable[..., None]) -> None:
    reply, expected = CASES[case]
    same("xml", f"{reply}\n<!-- ok -->Bye. <c>d</c>", expected)


LATE = "<a>\n words <i>x</i></a><b>y</b>"


def test_a_child_that_comes_too_late_ends_the_stream_of_its_field(reader: Any, truth: Any) -> None:
    """DSPy strips a text only if it has no child: whoever has given the first word can't know."""
    assert truth("xml", LATE) == {"a": "\n words <i>x</i>", "b": "y"}
    reading = reader("xml", list(LATE))
    assert reading.texts == {"a": "words", "b": "y"}
    assert reading.ended == {"b"}
    assert reader("xml", [LATE]).texts == truth("xml", LATE), "as a whole it is known in time"


def test_the_second_of_a_name_is_not_said(reader: Any, truth: Any) -> None:
    assert truth("xml", "<a>1</a><a>2</a>") == {"a": "['1', '2']"}
    assert reader("xml", list("<a>1</a><a>2</a>")).texts == {"a": "1"}


MALFORMED = {
    "not closed": "<a>x</a><b>y",
    "a stray ampersand": "<a>x & y</a><b>y</b>",
    "a stray less-than": "<a>x < y</a><b>y</b>",
    "an unknown entity": "<a>x&nbsp;y</a><b>y</b>",
    "crossed": "<a>x<b></a>y</b>",
    "the end of CDATA": "<a>x]]>y</a><b>y</b>",
    "a control character": "<a>x\x01y</a><b>y</b>",
    "half a character": "<a>x\ud83dy</a><b>y</b>",
    "a declaration": "<?xml version='1.0'?><a>x</a><b>y</b>",
    "a document type": "<!DOCTYPE a [<!ENTITY e 'e'>]><a>&e;</a><b>y</b>",
    "the end of DSPy's own root": "<a>x</a></dspy_root><b>y</b>",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_text_that_is_no_xml_ends_the_stream(case: str, reader: Any, truth: Any, all_chunkings: Any) -> None:
    reply = MALFORMED[case]
    assert truth("xml", reply) is None
    for chunks in all_chunkings(reply):
        reading = reader("xml", chunks)
        assert reading.texts.get("a", "") in ("", "x", "x]", "x]]")
        assert "b" not in reading.ended


TEXT = [
    "x",
    "hello world",
    " ",
    "\n",
    "\r\n",
    "\r",
    "]",
    "]]",
    "\u2028",
    "é",
    "😀",
    "\xa0",
    ">",
    "[[ ## a ## ]]",
    '"',
    "}",
]
MARKED = ["&amp;", "&lt;", "&#65;", "&#x1F600;", "<![CDATA[ <i>& ]]>", "<![CDATA[]]>", "<!-- > -->", "<?pi x?>"]
CHILDREN = ["<b2>y</b2>", "<br/>", " <i k='1\"2'>z</i> t &lt; "]
WRONG = ["&", "<", "]]>", "&nbsp;", "\x01", "\ud83d", "<a>", "</a>", "<p:x/>", "<!", "<a"]


def fields(pieces: list[str]) -> st.SearchStrategy[str]:
    inner = st.lists(st.sampled_from(pieces), max_size=6).map("".join)
    forms = st.sampled_from(["<%s>%s</%s>", "<%s >%s</%s >", "<%s>\n%s\n</%s>", '<entry key="%s">%s</entry><!--%s-->'])
    one = st.tuples(st.sampled_from("abc"), forms, inner, st.sampled_from(["", "\n\n", " t "]))
    return st.lists(one, max_size=3, unique_by=lambda field: field[0]).map(
        lambda found: "".join(form % (name, text, name) + after for name, form, text, after in found)
    )


@settings(max_examples=500, deadline=None)
@given(reply=fields(TEXT + MARKED), seed=st.integers(0, 99))
def test_any_text_reads_as_dspy_reads_it(reply: str, seed: int, reader: Any, truth: Any, cut: Any) -> None:
    expected = truth("xml", reply)
    for chunks in ([reply], list(reply), cut(reply, seed), cut(reply, seed, 2)):
        reading = reader("xml", chunks)
        if expected is not None:
            assert reading.texts == expected
            assert reading.ended == set(expected)


def named(reply: str, name: str) -> int:
    """Count the elements that DSPy takes for a field."""
    root = ElementTree.fromstring(f"<r>{reply}</r>")
    return sum((child.get("key", "entry") if child.tag == "entry" else child.tag) == name for child in root)


@settings(max_examples=400, deadline=None)
@given(reply=fields(TEXT + MARKED + CHILDREN + WRONG), seed=st.integers(0, 99))
def test_whole_replies_read_as_dspy_reads_them_and_parts_never_end_wrong(
    reply: str, seed: int, reader: Any, truth: Any, cut: Any
) -> None:
    expected = truth("xml", reply)
    if expected is None:
        return
    for name in "ab":
        if named(reply, name) > 1:  # DSPy makes a list of them, and a text of the list
            del expected[name]
    whole, parts = reader("xml", [reply]), reader("xml", cut(reply, seed))
    assert {name: whole.texts[name] for name in expected} == expected
    for name in parts.ended & set(expected):
        assert parts.texts[name] == expected[name]


@settings(max_examples=300, deadline=None)
@given(a=st.text(), b=st.sampled_from(TEXT + MARKED + WRONG), seed=st.integers(0, 99))
def test_dspys_own_text_is_read_as_dspy_reads_it(
    a: str, b: str, seed: int, reader: Any, truth: Any, cut: Any, formatted: Any
) -> None:
    reply = formatted("xml", {"a": a, "b": b})
    expected = truth("xml", reply)
    if expected is not None:  # XML has no way to say a control character
        assert reader("xml", cut(reply, seed)).texts == expected


@pytest.mark.parametrize(
    "middle", ["<!--" + " no >" * 300_000 + "-->", "<?x " + "y" * 100_000 + "?>", f"<c d='{'e' * 100_000}'/>"]
)
def test_long_markup_in_short_chunks(middle: str, reader: Any, cut: Any) -> None:
    """Expat begins a tag again with every chunk; of the comment's size that takes it minutes."""
    assert reader("xml", cut(f"<a>x</a>{middle}<b>y</b>", 1)).texts == {"a": "x", "b": "y"}


class TestNothingWaitsThatNeedNot:
    def feed(self, *chunks: str) -> list[str]:
        parser = make_parser("xml", (FieldSpec("a"), FieldSpec("b")))
        parser.feed("<a>\n")
        out = []
        for chunk in chunks:
            events = parser.feed(chunk)
            assert all(isinstance(event, FieldText) for event in events)
            out.append("|".join(event.text + "$" * event.last for event in events if isinstance(event, FieldText)))
        return out

    def test_words_are_out_with_their_tokens(self) -> None:
        assert self.feed("H", "el", " lo", "\n", "x") == ["H", "el", " lo", "", "\nx"]

    def test_markup_is_out_when_it_is_whole(self) -> None:
        assert self.feed("x<", "![CDATA[", "y", "]]", ">&am", "p;z") == ["x", "", "y", "", "", "&z"]

    def test_a_field_ends_with_its_tag(self) -> None:
        assert self.feed("x\n</a", "><b>y</b>") == ["x", "$|y$"]
