"""Text that passes a field's parser by, as the compiled part lets it pass, is the text that the parser would give."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.server.splice_lm import compiled

from dspy_live.runtime.native import native
from dspy_live.sansio.fields import FieldSpec, FieldText, make_parser
from dspy_live.sansio.fields.base import Parser

FIELDS = (FieldSpec("a"), FieldSpec("b"), FieldSpec("n", "scalar"), FieldSpec("c", "container"))

WORDS = st.sampled_from([
    *("word", " and", " so", ".", "\n", " ", "\n\n", "\t", "[", "[[", "[[ ## b ## ]]", "[[ ## ", "]]", "\r", "\r\n"),
    *("é", "日", "🙂", "\u00a0", "\u2028", "\u0085", "\x0b", "\x1c", "\x7f", "\x00", "\ufffe", "\ufeff", "\u200b"),
    *('"', "\\", "\\n", "/", "{", "}", '", "b": "', "<", ">", "&", "&amp;", "<x>", "</a>", "]]>", "<b>", "</b>", ","),
])  # fmt: skip
TOKENS = st.lists(st.one_of(st.sampled_from(["word", " and", " so", ".", " "]), WORDS), max_size=30)

OPENINGS = {"chat": "[[ ## a ## ]]\nIt", "json": '{"a": "It', "xml": "<a>It"}


class Past:
    """Feeds a parser, and has as much as may pass it by go through the compiled part."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self.found: list[Any] = []
        self.passed = 0

    def read(self, tokens: list[str], ascii_only: bool) -> None:
        at = 0
        while at < len(tokens):
            at += self._pass(tokens[at:], ascii_only)
            if at < len(tokens):
                self.found += self.parser.feed(tokens[at])
                at += 1
        self.found += self.parser.finish()

    def _pass(self, tokens: list[str], ascii_only: bool) -> int:
        """Let as many tokens pass as may; return how many did."""
        plain = self.parser.plain()
        if plain is None:
            return 0
        splicer = native().Splicer()
        with ExitStack() as stack:
            ends = [stack.enter_context(end) for _ in range(2) for end in socket.socketpair()]
            lm, source, client, target = ends
            key = splicer.add(
                source.fileno(), target.fileno(), b"<", b'">', b"", b"", b"\n", None,
                plain.stop, plain.lines, plain.escapes, None,
            )  # fmt: skip
            for token in tokens:
                said = b"<%b>" % json.dumps(token, ensure_ascii=ascii_only).encode()[1:]
                lm.sendall(b"%x\r\n%b\r\n" % (len(said), said))
                if splicer.run():
                    break
            raw_text, raw_held, events, *_ = splicer.release(key)
            text, held = (orjson.loads(b'"%b"' % raw) for raw in (raw_text, raw_held))
            client.setblocking(False)
            frames = client.recv(1 << 20) if text else b""
        assert "".join(_said(frames)) == text
        if text:
            plain.write(text)
            self.found.append(FieldText(plain.field, text))
        if held:
            assert self.parser.feed(held) == []
        self.passed += events
        return int(events)


def _said(frames: bytes) -> Iterator[str]:
    """The texts in the client's chunks."""
    while frames:
        size, _, rest = frames.partition(b"\r\n")
        yield orjson.loads(rest[: int(size, 16)])
        frames = rest[int(size, 16) + 2 :]


def texts(found: list[Any]) -> dict[str, str]:
    said: dict[str, str] = {}
    for piece in found:
        if isinstance(piece, FieldText):
            said[piece.field] = said.get(piece.field, "") + piece.text
    return said


@pytest.mark.parametrize("grammar", OPENINGS)
@given(tokens=TOKENS, ascii_only=st.booleans())
@example(tokens=["word", "\n", "\t", "[[ ## b ## ]]", "\n", "x", " and"], ascii_only=False)
@example(tokens=["word", "\ufffe", " and", " so"], ascii_only=False)
@example(tokens=["word", " \n", " and", "\n", "[", " so"], ascii_only=False)
def test_the_fields_are_the_same(grammar: Any, tokens: list[str], ascii_only: bool) -> None:
    tokens = [OPENINGS[grammar], *tokens]
    through = make_parser(grammar, FIELDS)
    expected = [piece for token in tokens for piece in through.feed(token)] + through.finish()
    with compiled(True):
        past = Past(make_parser(grammar, FIELDS))
        past.read(tokens, ascii_only)
    said = texts(past.found)
    assert all(said.get(field, "") == text for field, text in past.parser.texts().items())
    assert past.parser.texts() == through.texts()
    assert past.parser.ended() == through.ended()
    values = [[piece for piece in found if not isinstance(piece, FieldText)] for found in (past.found, expected)]
    assert values[0] == values[1]


@pytest.mark.parametrize("grammar", OPENINGS)
def test_words_pass(grammar: Any) -> None:
    with compiled(True):
        past = Past(make_parser(grammar, FIELDS))
        past.read([OPENINGS[grammar], *["word", " and ", "so"] * 5], ascii_only=False)
    assert past.passed == 15
