"""Whatever a reply says, at any chunking: legal events and no exception; and no more memory than it is long."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.sansio.fields import FieldSpec, ReplyFormat

FIELDS = (
    FieldSpec("a"),
    FieldSpec("b"),
    FieldSpec("n", "scalar"),
    FieldSpec("l", "container"),
    FieldSpec("m", "container"),
)
GRAMMARS: tuple[ReplyFormat, ...] = ("chat", "json", "xml")
MARKUP = [
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "&",
    "&#1",
    ";",
    "&lt;",
    "<entry key='a'>",
    "</entry>",
    "<?",
    "?>",
    "<i xmlns='u'>",
    "</i>",
]
MARKS = {
    "chat": [
        "[[ ## a ## ]]",
        "\n[[ ## b ## ]]\n",
        "\n[[ ## n ## ]]",
        "\n[[ ## l ## ]]\n",
        "[[ ##",
        " ## ]]",
        "]]",
        "\r",
    ],
    "json": [
        '{"a": "',
        '", "b":',
        '"n" : ',
        '"l": [',
        '"m": {',
        '"',
        "\\",
        "\\u",
        "d83d",
        "\\ude00",
        "null",
        "True",
        "-1e",
    ],
    "xml": [
        "<a>",
        "</a>",
        "<b ",
        "/>",
        "<n>",
        "</n>",
        "<l>",
        "</l>",
        "<item>",
        "</item>",
        "<m><k>",
        "</k></m>",
        *MARKUP,
    ],
}
COMMON = ["{", "}", "[", "]", ",", ":", "\n", " ", "\u2028", "\ud83d", "\ude00", "\x00", "x", "1", "word, so: ", "'"]


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_any_text_gives_legal_events(grammar: ReplyFormat, reader: Any, cut: Any) -> None:
    """800 replies in each grammar, each read in three chunkings."""
    pieces = st.lists(st.sampled_from(MARKS[grammar] + COMMON) | st.text(max_size=3), max_size=25)

    @settings(max_examples=800, deadline=None)
    @given(reply=pieces.map("".join), seed=st.integers(0, 99))
    def fuzz(reply: str, seed: int) -> None:
        whole = reader(grammar, [reply], FIELDS)
        for chunks in (list(reply), cut(reply, seed)):
            parts = reader(grammar, chunks, FIELDS)
            for name in whole.ended & parts.ended & {"a", "b"}:
                assert whole.texts[name] == parts.texts[name], "the chunking changed a text"

    fuzz()


FRAME = {
    "chat": ("[[ ## a ## ]]\n", "\n[[ ## b ## ]]\ny"),
    "json": ('{"a": "', '", "b": "y"}'),
    "xml": ("<a>", "</a><b>y</b>"),
}
FILL = {
    "words": " word, more",
    "white space": "   ",
    "open brackets": "[[ ## x",
    "escapes": {"chat": "\n", "json": "\\n\\u00e9", "xml": "&amp;"},
}


@pytest.mark.parametrize("fill", FILL)
@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_field_of_a_megabyte_in_short_tokens(grammar: ReplyFormat, fill: str, reader: Any, truth: Any) -> None:
    """Anything that cost the square of the length would take hours here, or terabytes."""
    text = FILL[fill]
    text = text[grammar] if isinstance(text, dict) else text
    before, after = FRAME[grammar]
    reply = before + "w" + text * (1_000_000 // len(text)) + "w" + after
    chunks = [reply[at : at + 23] for at in range(0, len(reply), 23)]
    assert reader(grammar, chunks).texts == truth(grammar, reply)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_memory_is_bounded_by_the_text(grammar: ReplyFormat) -> None:
    from dspy_live.sansio.fields import make_parser

    before, after = FRAME[grammar]
    parser = make_parser(grammar, FIELDS)
    parser.feed(before)
    tracemalloc.start()
    try:
        for _ in range(50_000):
            parser.feed(" word")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    parser.feed(after)
    assert held < 2 * 250_000, "250,000 characters were given out; a copy is kept to be compared"
    assert len(parser.texts()["a"]) >= 249_999


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_candidate_of_a_megabyte_in_short_tokens(grammar: ReplyFormat, reader: Any, cut: Any, truth: Any) -> None:
    """What may still become a header, a name or a tag is looked at once, however long it gets."""
    name = "n" * 300_000
    reply = {
        "chat": f"[[ ## {name} ## ]]\nx\n[[ ## a ## ]]\ny\n[[ ## {name} ##]]",
        "json": f'{{"{name}": "{name}", "a": "y"}}',
        "xml": f"<{name}>x</{name}><a>y</a>",
    }[grammar]
    assert reader(grammar, cut(reply, 1)).texts == truth(grammar, reply)
