"""A parser that has texts cut out for it finds what one finds that does it all by itself."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.server.splice_lm import compiled

from dspy_live.runtime.native import native
from dspy_live.sansio.openai import StreamParser
from dspy_live.sansio.openai.errors import ReplyError

TEXT = st.text(st.sampled_from('ab "\\/\n\r\t\b\x00\x1f\x7fé日🙂\u2028\ud800{}:'), max_size=6)


@st.composite
def events(draw: Any) -> bytes:
    """One event, as some server writes it; most are of one pattern."""
    key = draw(st.sampled_from(["content"] * 8 + ["reasoning_content", "reasoning"]))
    choice: dict[str, Any] = {"index": draw(st.sampled_from([0] * 9 + [1])), "delta": {key: draw(TEXT)}}
    if draw(st.integers(0, 9)) == 0:
        choice["finish_reason"] = draw(st.sampled_from([None, "stop"]))
    chunk = {"id": draw(st.sampled_from(["c"] * 9 + ["d"])), "choices": [choice]}
    ascii_only, tight = draw(st.booleans()), draw(st.integers(0, 9)) > 0
    data = json.dumps(chunk, ensure_ascii=ascii_only, separators=(",", ":") if tight else None)
    end = draw(st.sampled_from(["\n\n"] * 8 + ["\r\n\r\n", "\n", "\n\n\n"]))
    return b"data: " + data.encode("utf-8", "surrogatepass") + end.encode()


ODD = st.sampled_from([
    b": comment\n\n", b"data: [DONE]\n\n", b"data: {\n\n", b'data: {"choices":[]}\n\n', b"event: x\n", b"\n", b"\r",
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a\tb"}}]}\n\n',
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"\\u00e9"}}]}\n\n',
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"\\x"}}]}\n\n',
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"cut off',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n',
    b'data: {"error":{"message":"no"}}\n\n', b'{"choices":[]}',
])  # fmt: skip

STREAM = st.lists(st.one_of(events(), events(), events(), events(), ODD), max_size=25)


def read(parser: StreamParser, pieces: list[bytes]) -> list[Any]:
    """All that comes of the pieces, one after the other."""
    found: list[Any] = []
    try:
        for piece in pieces:
            found.append(parser.feed(piece))
        found.append(parser.finish())
        found.append(parser.reply())
    except ReplyError as exc:
        found.append((type(exc), str(exc), exc.deltas))
    return [*found, parser.usage, parser.chunks, parser.done, parser.complete]


@given(STREAM, st.lists(st.integers(1, 200), max_size=30), st.integers(1, 2))
def test_all_deltas_and_the_reply_are_the_same(stream: list[bytes], cuts: list[int], n: int) -> None:
    with compiled(True):
        cut = native().cut
    data, pieces = b"".join(stream), []
    for size in cuts:
        pieces.append(data[:size])
        data = data[size:]
    pieces.append(data)
    assert read(StreamParser(n=n, cut=cut), pieces) == read(StreamParser(n=n), pieces)
