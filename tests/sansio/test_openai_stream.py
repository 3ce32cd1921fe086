"""The chat-completions stream: what goes in as bytes at any chunking comes out as deltas and one reply."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dspy_live.sansio.openai import (
    Delta,
    MalformedReply,
    ProviderFailed,
    ReplyError,
    StreamCut,
    StreamParser,
    stream,
)

Dumps = Callable[[Any], bytes]


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **top: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 17, "model": "m", "choices": [choice], **top}


def wire(*chunks: dict[str, Any], done: bool = True, end: bytes = b"\n", dumps: Dumps = orjson.dumps) -> bytes:
    body = b"".join(b"data: " + dumps(c) + end + end for c in chunks)
    return body + (b"data: [DONE]" + end + end if done else b"")


def spaced(value: Any) -> bytes:
    return json.dumps(value).encode()  # Python's own form, with spaces after colons and \u escapes


def parse(data: bytes, *cuts: int, n: int = 1, merge: bool = True) -> tuple[list[Delta], dict[str, Any]]:
    parser = StreamParser(n=n, merge=merge)
    out: list[Delta] = []
    for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        out += parser.feed(data[start:end])
    out += parser.finish()
    return out, parser.reply()


def joined(deltas: list[Delta], kind: str = "text", index: int = 0) -> str:
    return "".join(d.text for d in deltas if d.kind == kind and d.index == index)


def content(reply: dict[str, Any], index: int = 0) -> Any:
    return reply["choices"][index]["message"]["content"]


WORDS = ["Hel", "lo", ' "quoted"', "\nline", " back\\slash", " é€", "𝄞", "", " [[ ## x", "\u2028", " end"]
PLAIN = wire(
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": w}) for w in WORDS),
    chunk({}, "stop"),
    {**chunk(), "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}},
)


def test_a_stream_becomes_text_and_a_whole_reply() -> None:
    deltas, reply = parse(PLAIN)
    assert joined(deltas) == "".join(WORDS)
    assert reply == {
        "id": "c1",
        "object": "chat.completion",
        "created": 17,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("dumps", [orjson.dumps, spaced])
def test_at_every_split_point_with_every_line_end(end: bytes, dumps: Dumps) -> None:
    data = b"\xef\xbb\xbf: warming up" + end + end
    data += wire(*(chunk({"content": w}) for w in WORDS), chunk({}, "stop"), end=end, dumps=dumps)
    whole = parse(data)
    assert joined(whole[0]) == "".join(WORDS)
    for at in range(len(data) + 1):
        deltas, reply = parse(data, at)
        assert joined(deltas) == "".join(WORDS), at
        assert reply == whole[1], at
    assert joined(parse(data, *range(1, len(data)))[0]) == "".join(WORDS)


any_text = st.text(max_size=12) | st.sampled_from(WORDS)


@settings(max_examples=300)
@given(
    st.lists(any_text, max_size=30),
    st.lists(st.integers(0, 10_000), max_size=8),
    st.sampled_from([orjson.dumps, spaced]),
    st.sampled_from([{}, {"obfuscation": "x"}, {"usage": None}, {"system_fingerprint": "fp"}]),
    st.booleans(),
)
def test_the_text_is_the_same_at_any_chunking(
    texts: list[str], cuts: list[int], dumps: Dumps, top: dict[str, Any], merge: bool
) -> None:
    data = wire(*(chunk({"content": t}, **top) for t in texts), chunk({}, "stop"), dumps=dumps)
    deltas, reply = parse(data, *sorted(min(c, len(data)) for c in cuts), merge=merge)
    assert joined(deltas) == "".join(texts)
    assert (content(reply) or "") == "".join(texts)
    assert all(d.text for d in deltas)


def test_without_merging_each_chunk_is_a_delta_and_with_it_neighbours_are_one() -> None:
    data = wire(*(chunk({"content": w}) for w in ("a", "b", "c")), chunk({}, "stop"))
    assert [d.text for d in parse(data, merge=False)[0]] == ["a", "b", "c"]
    assert [d.text for d in parse(data)[0]] == ["abc"]


@given(st.lists(st.tuples(st.sampled_from(["text", "reasoning", "tool", "odd"]), any_text), max_size=20))
def test_kinds_that_change_in_mid_stream_keep_their_order(items: list[tuple[str, str]]) -> None:
    chunks = []
    for kind, text in items:
        if kind == "text":
            chunks.append(chunk({"content": text}))
        elif kind == "reasoning":
            chunks.append(chunk({"reasoning_content": text}))
        elif kind == "tool":
            chunks.append(
                chunk({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": text}}]})
            )
        else:
            chunks.append(chunk({"content": text}, created=18, odd={"content": "not this"}))
    deltas, reply = parse(wire(*chunks, chunk({}, "stop")))
    expected = [("text" if k == "odd" else k, t) for k, t in items if t or k == "tool"]
    flat = [(d.kind, c) for d in deltas for c in d.text]
    assert flat == [(k, c) for k, t in expected for c in t]
    assert (content(reply) or "") == "".join(t for k, t in expected if k == "text")


def test_a_chunk_that_only_looks_like_the_one_before_is_parsed() -> None:
    """The same beginning and end, but the text has a quote: what follows it is another key."""
    first = wire(chunk({"content": "abc"}), done=False)
    second = first.replace(b'"abc"', b'"x","role":"assistant","refusal":"no"')
    deltas, reply = parse(first + first + second + wire(chunk({}, "stop")))
    assert joined(deltas) == "abcabcx"
    assert reply["choices"][0]["message"]["refusal"] == "no"


raw_texts = st.lists(
    st.sampled_from([b"a", b" b", b"\\n", b'\\"', b"\\\\", b"\\", b'"', b"\\u00e9", b"\\ud834", b"\\udd1e", b"\\x",
                     b"\xc3\xa9", b"\xff", b'","role":"tool', b'"},"logprobs":null']),
    max_size=4,
).map(b"".join)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(raw_texts, max_size=8), st.integers(1, 3), st.booleans())
@example([b"\\n", b'say \\"x\\"', b"\\", b"late"], 1, True)
def test_what_is_cut_out_of_a_chunk_is_what_parsing_it_gives(raws: list[bytes], at_once: int, merge: bool) -> None:
    """Escapes, bytes that are not UTF-8 and broken JSON between two chunks of one pattern."""
    event = wire(chunk({"content": "X"}), done=False)
    events = [event, event, *(event.replace(b"X", raw) for raw in raws), wire(chunk({}, "stop"))]
    pieces = [b"".join(events[at : at + at_once]) for at in range(0, len(events), at_once)]

    def outcome() -> Any:
        parser, out = StreamParser(merge=merge), []
        try:
            for piece in pieces:
                out += parser.feed(piece)
            return [d.text for d in out], parser.reply(), parser.chunks
        except ReplyError as error:
            return [d.text for d in out + error.deltas], type(error), parser.chunks

    cut_out = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "learn", lambda line, chunk: None)
        assert cut_out == outcome()


def test_a_chunk_with_an_escape_is_not_parsed_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line end of a reply is one. Parsing such chunks took ten times as long as cutting their text out."""
    events = [wire(chunk({"content": text}), done=False) for text in ("a", "\n\n", 'b "c"', "é\n")]
    for at_once in (1, 4):
        parser = StreamParser()
        parser.feed(events[0])
        with monkeypatch.context() as patch:
            patch.setattr(parser, "_line", None)  # where a line is taken apart
            fed = [parser.feed(b"".join(events[at : at + at_once])) for at in range(0, 4, at_once)]
        assert "".join(d.text for deltas in fed for d in deltas) == 'a\n\nb "c"é\n'


def test_a_template_is_not_learned_from_the_wrong_content_key() -> None:
    """``content`` stands in another object first, with the same value."""
    one = {"meta": {"content": "same"}, **chunk({"content": "same"})}
    two = {"meta": {"content": "other"}, **chunk({"content": "same"})}
    assert joined(parse(wire(one, one, two, one, chunk({}, "stop")))[0]) == "same" * 4


def test_a_template_is_not_learned_from_a_repeated_key() -> None:
    """JSON takes the last of two equal keys; the first stands where a template would look."""
    one = wire(chunk({"content": "same"}), done=False)
    twice = one.replace(b'"content":"same"', b'"content":"same","content":"same"')
    other = one.replace(b'"content":"same"', b'"content":"other","content":"same"')
    assert joined(parse(twice + twice + other + wire(chunk({}, "stop")))[0]) == "same" * 3


def test_an_event_inside_an_unfinished_comment_is_part_of_the_comment() -> None:
    event = wire(chunk({"content": "a"}), done=False)
    parser = StreamParser()
    assert [len(parser.feed(piece)) for piece in (event, event, b": and ", event, event)] == [1, 1, 0, 0, 1]


def test_log_probabilities_are_joined_and_never_skipped() -> None:
    def with_logprob(text: str) -> dict[str, Any]:
        c = chunk({"content": text})
        c["choices"][0]["logprobs"] = {"content": [{"token": text, "logprob": -0.5}], "refusal": None}
        return c

    _, reply = parse(wire(*(with_logprob(t) for t in "aaaa"), chunk({}, "stop")))
    assert [item["token"] for item in reply["choices"][0]["logprobs"]["content"]] == list("aaaa")


def test_reasoning_under_either_name_and_only_once() -> None:
    chunks = [
        chunk({"reasoning_content": "a"}),
        chunk({"reasoning": "b"}),
        chunk({"reasoning": "c", "reasoning_content": "c"}),
    ]
    deltas, reply = parse(wire(*chunks, chunk({"content": "x"}), chunk({}, "stop")))
    assert joined(deltas, "reasoning") == "abc"
    assert reply["choices"][0]["message"]["reasoning_content"] == "abc"
    assert content(reply) == "x"


def test_mistrals_content_parts() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]
    deltas, reply = parse(wire(chunk({"content": parts}), chunk({}, "stop")))
    assert [(d.kind, d.text) for d in deltas] == [("reasoning", "hm"), ("text", "yes")]
    assert content(reply) == "yes"


def tool(
    index: int | None = None, call: str | None = None, name: str | None = None, args: Any = None
) -> dict[str, Any]:
    fragment: dict[str, Any] = {"function": {k: v for k, v in (("name", name), ("arguments", args)) if v is not None}}
    if index is not None:
        fragment["index"] = index
    if call is not None:
        fragment["id"] = call
    return chunk({"tool_calls": [fragment]})


def calls(reply: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = reply["choices"][0]["message"]["tool_calls"]
    return [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in found]


def test_tool_calls_are_joined_by_index() -> None:
    data = wire(
        tool(0, "a", "search", ""), tool(0, args='{"q":'), tool(1, "b", "add", ""), tool(1, args="{}"),
        tool(0, args=' "x"}'), chunk({}, "tool_calls"),
    )  # fmt: skip
    deltas, reply = parse(data)
    assert calls(reply) == [("a", "search", '{"q": "x"}'), ("b", "add", "{}")]
    assert content(reply) is None
    assert [(d.call, d.id, d.name) for d in deltas if d.id] == [(0, "a", "search"), (1, "b", "add")]
    assert reply["choices"][0]["message"]["tool_calls"][0]["type"] == "function"


def test_servers_that_number_all_calls_0_or_not_at_all() -> None:
    same = wire(tool(0, "a", "f", "{}"), tool(0, "b", "g", "{}"), chunk({}, "tool_calls"))
    assert calls(parse(same)[1]) == [("a", "f", "{}"), ("b", "g", "{}")]
    none = wire(tool(None, "a", "f", "{"), tool(None, args="}"), tool(None, "b", "g", {"x": 1}), chunk({}, "stop"))
    assert calls(parse(none)[1]) == [("a", "f", "{}"), ("b", "g", '{"x":1}')]


def test_a_server_that_repeats_id_and_name_in_each_fragment() -> None:
    data = wire(tool(0, "a", "f", "{"), tool(0, "a", "f", "}"), chunk({}, "tool_calls"))
    assert calls(parse(data)[1]) == [("a", "f", "{}")]


def test_several_choices_do_not_mix() -> None:
    data = wire(
        *(chunk({"content": t}, index=i) for t in ("x", "y", "z") for i in (1, 0)),
        chunk({}, "stop", 0),
        chunk({}, "length", 1),
        done=False,
    )
    deltas, reply = parse(data, n=2)
    assert joined(deltas, index=0) == joined(deltas, index=1) == "xyz"
    assert [c["index"] for c in reply["choices"]] == [0, 1]
    assert [c["finish_reason"] for c in reply["choices"]] == ["stop", "length"]


def test_half_a_surrogate_pair_waits_for_its_other_half() -> None:
    """A JavaScript gateway cuts by UTF-16 units; U+1D11E then comes as two escapes in two chunks."""
    data = wire(chunk({"content": "a"}), chunk({"content": "HI"}), chunk({"content": "LOb"}), chunk({"content": "c"}))
    data = data.replace(b"HI", b"\\ud834").replace(b"LO", b"\\udd1e")
    for at in range(len(data)):
        deltas, reply = parse(data, at)
        assert joined(deltas) == "a𝄞bc" == content(reply)


def test_half_a_pair_without_the_other_becomes_the_replacement_character() -> None:
    data = wire(*(chunk({"content": text}) for text in ("x", "y", "aHI", "b", "c")), chunk({}, "stop"))
    data = data.replace(b"HI", b"\\ud834")
    for at in range(len(data)):
        deltas, reply = parse(data, at)
        assert joined(deltas) == "xya\ufffdbc" == content(reply)


def test_bytes_that_are_not_utf8_become_the_replacement_character() -> None:
    data = wire(*(chunk({"content": "aXb"}) for _ in range(3)), chunk({}, "stop")).replace(b"aXb", b"a\xffb")
    deltas, _ = parse(data)
    assert joined(deltas) == "a\ufffdb" * 3


def test_pretty_printed_chunks_over_several_data_lines() -> None:
    lines = json.dumps(chunk({"content": "hi"}), indent=1).encode().split(b"\n")
    data = b"".join(b"data: " + line + b"\n" for line in lines) + b"\n" + wire(chunk({}, "stop"))
    for at in range(0, len(data), 3):
        assert joined(parse(data, at)[0]) == "hi"


def test_data_lines_without_blank_lines_between_them() -> None:
    data = b"".join(b"data:" + orjson.dumps(chunk({"content": w})) + b"\n" for w in "abc")
    assert joined(parse(data + b"data:[DONE]\n")[0]) == "abc"


def test_a_last_line_without_its_line_end_counts() -> None:
    data = wire(chunk({"content": "a"}), chunk({"content": "b"}, "stop"), done=False).rstrip()
    assert joined(parse(data)[0]) == "ab"
    assert joined(parse(data[:-1] + b"}")[0]) == "ab"


def test_text_after_done_is_ignored() -> None:
    deltas, reply = parse(wire(chunk({"content": "a"}, "stop")) + b'data: {"error":"late"}\n\ndata: x\n\n' + PLAIN)
    assert joined(deltas) == "a" == content(reply)
    parser = StreamParser()
    parser.feed(wire(chunk({"content": "a"}, "stop"), done=False))
    assert parser.complete
    assert not parser.done
    parser.feed(b"data: [DONE]\n")
    assert parser.done
    event = wire(chunk({"content": "late"}), done=False)
    parser = StreamParser()
    parser.feed(event + event + b"data: [DONE]\n\n")
    assert parser.feed(event) == []


def test_events_with_names_ids_and_heartbeats() -> None:
    data = b": beat\n\nevent: message\nid: 4\nretry: 10\ndata:\n\n" + wire(chunk({"content": "a"}, "stop"))
    assert joined(parse(data)[0]) == "a"


def test_top_level_extras_and_groqs_usage_are_kept() -> None:
    data = wire(
        chunk({"content": "a"}, citations=["u"], service_tier="default"),
        chunk({}, "stop", timings={"predicted_ms": 3}, x_groq={"usage": {"total_tokens": 9}}),
    )
    _, reply = parse(data)
    assert reply["citations"] == ["u"]
    assert reply["timings"] == {"predicted_ms": 3}
    assert reply["usage"] == {"total_tokens": 9}
    assert reply["service_tier"] == "default"


def test_usage_with_every_chunk_keeps_the_last() -> None:
    chunks = [chunk({"content": "a"}, usage={"total_tokens": n}) for n in range(1, 5)]
    assert parse(wire(*chunks, chunk({}, "stop")))[1]["usage"] == {"total_tokens": 4}


@pytest.mark.parametrize(
    ("event", "message", "code", "status"),
    [
        (b'data: {"error":{"message":"no memory","type":"server_error","code":"oom"}}\n\n', "no memory", "oom", None),
        (b'data: {"error":{"message":"slow down","code":429}}\n\n', "slow down", "429", 429),
        (b'event: error\ndata: {"error":"no more"}\n\n', "no more", None, None),
        (b'error: {"code":500,"message":"cache full","type":"server_error"}\n\n', "cache full", "server_error", 500),
        (b'data: {"object":"error","message":"bad","code":400}\n\n', "bad", "400", 400),
        (b'data: {"choices":[{"delta":{},"finish_reason":"error","error":{"message":"gone","code":502}}]}\n\n',
         "gone", "502", 502),
    ],
)  # fmt: skip
def test_an_error_in_the_stream(event: bytes, message: str, code: str | None, status: int | None) -> None:
    parser = StreamParser()
    with pytest.raises(ProviderFailed) as caught:
        parser.feed(wire(chunk({"content": "begun"}), done=False) + event)
    assert caught.value.message == message
    assert (caught.value.code, caught.value.status) == (code, status)
    assert [d.text for d in caught.value.deltas] == ["begun"]


@pytest.mark.parametrize("bad", [b"data: {not json}\n\n", b'data: "text"\n\n', b'data: {"choices":[3]}\n\n',
                                 b'data: {"choices":{"a":1}}\n\n', b'data: {"choices":[{"delta":"x"}]}\n\n',
                                 b'data: {"choices":[{"index":[1]}]}\n\n'])  # fmt: skip
def test_a_malformed_chunk(bad: bytes) -> None:
    parser = StreamParser()
    parser.feed(wire(chunk({"content": "a"}), done=False))
    with pytest.raises(MalformedReply):
        parser.feed(bad)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.95])
def test_a_cut_stream_says_so(keep: float) -> None:
    data = wire(*(chunk({"content": w}) for w in WORDS), chunk({}, "stop"), done=False)
    parser = StreamParser()
    parser.feed(data[: int(len(data) * keep)])
    with pytest.raises(StreamCut):
        parser.finish()
    with pytest.raises(StreamCut):
        parser.reply()


def test_a_cut_after_the_finish_reason_is_no_loss() -> None:
    data = wire(chunk({"content": "a"}), chunk({}, "stop"), done=False) + b'data: {"id":"c1","usa'
    assert content(parse(data)[1]) == "a"


def test_one_of_two_choices_missing_is_a_cut() -> None:
    data = wire(chunk({"content": "a"}, "stop"), done=False)
    parse(data)
    with pytest.raises(StreamCut):
        parse(data, n=2)


def test_done_without_any_choice() -> None:
    with pytest.raises(MalformedReply, match="without any choice"):
        parse(b"data: [DONE]\n\n")


def test_a_plain_reply_in_place_of_the_stream() -> None:
    plain = {
        "id": "c",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "all"}, "finish_reason": "stop"}],
    }
    for body in (orjson.dumps(plain), b"\n " + json.dumps(plain, indent=2).encode()):
        for at in range(0, len(body), 5):
            deltas, reply = parse(body, at)
            assert joined(deltas) == "all"
            assert reply == plain


def test_a_web_page_in_place_of_the_stream() -> None:
    with pytest.raises(MalformedReply, match="an HTML page: 502 Bad Gateway"):
        parse(b"<html><head><title>502 Bad Gateway</title></head></html>")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "index", "content", "tool_calls", "function", "arguments", "name", "id",
                         "logprobs", "usage", "error", "finish_reason", "message", "reasoning", "code", "x_groq"]),
        inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(json_values | st.dictionaries(st.just("choices"), st.lists(json_values, max_size=2)), max_size=4))
def test_any_json_gives_deltas_or_our_own_error(values: list[Any]) -> None:
    parser = StreamParser()
    try:
        for value in values:
            parser.feed(b"data: " + json.dumps(value).encode() + b"\n\n")
        parser.finish()
        parser.reply()
    except ReplyError:
        pass


@settings(max_examples=300)
@given(
    st.lists(
        st.binary(max_size=30) | st.sampled_from([b"data: ", b"\n", b"\r", b'{"choices":', b"[DONE]", PLAIN]),
        max_size=8,
    )
)
@example([b"data: " + b"[" * 5000 + b"\n\n"])
def test_any_bytes_give_deltas_or_our_own_error(pieces: list[bytes]) -> None:
    parser = StreamParser()
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.finish()
    except ReplyError:
        pass


def test_large_chunks_in_tiny_pieces_stay_whole() -> None:
    data = wire(*(chunk({"content": "x" * 50_000}) for _ in range(4)), chunk({}, "stop"))
    deltas, reply = parse(data, *range(7, len(data), 7))
    assert joined(deltas) == "x" * 200_000 == content(reply)


def test_a_long_reply_in_small_tokens_is_held_at_one_byte_a_character() -> None:
    """As a list of pieces a token of five characters cost 63 bytes. Python 3.11 joins a buffer's pieces at 100,000."""
    parser = StreamParser()
    token = wire(chunk({"content": " word"}), done=False)
    parser.feed(token)
    tracemalloc.start()
    for _ in range(100_000):
        parser.feed(token)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * 500_000
    parser.feed(wire(chunk({}, "stop")))
    assert content(parser.reply()) == " word" * 100_001
