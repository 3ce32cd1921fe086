"""Whatever an LM's server writes, and however it cuts it into pieces, a spliced stream says what another says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.runtime.http.peer import CHUNKED, END, chunk
from tests.server.splice_lm import FINISHED, Step, event
from tests.server.test_splice import both, pieces, read, reply

TEXT = reply("chat", "Because it is so, as is well known.\n\nAnd\n [so] on.", "word " * 25 + "and\n\nan end.")
TEXTS = pieces(Random(5), TEXT)
EVENTS = [event(text) for text in TEXTS]
ALL = [*EVENTS, *FINISHED]
BYTES = b"".join(ALL)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def changed(change: Callable[[int, dict[str, Any]], object]) -> Iterator[bytes]:
    """The events with something done to each; the last three stay."""
    for number, data in enumerate(EVENTS):
        said = json.loads(data[6:])
        change(number, said)
        yield b"data: " + json.dumps(said).encode() + b"\n\n"
    yield from FINISHED


def chunks(events: Iterator[bytes] | list[bytes]) -> list[Step]:
    return [CHUNKED, *map(chunk, events), END]


def with_header(data: bytes, header: bytes) -> bytes:
    return header + b"\r\n" + data + b"\r\n"


def thoughts() -> list[bytes]:
    said = event("").replace(b'"content"', b'"reasoning_content"')
    return [said.replace(b'""', b'"%s"' % word) for word in (b"first", b" I", b" think", b" about", b" it") * 4]


def tool_call() -> bytes:
    call = b'"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"f","arguments":"{}"}}]'
    return event("").replace(b'"content":""', call)


SERVERS: dict[str, list[Step]] = {
    "several events in a chunk": chunks([b"".join(ALL[at : at + 3]) for at in range(0, len(ALL), 3)]),
    "an event in several chunks": chunks(cut(BYTES, 50)),
    "chunks in upper case": [CHUNKED, *(with_header(e, b"%X" % len(e)) for e in ALL), END],
    "chunks with leading zeros": [CHUNKED, *(with_header(e, b"%06x" % len(e)) for e in ALL), END],
    "chunks with more zeros": [CHUNKED, *(with_header(e, b"%012x" % len(e)) for e in ALL), END],
    "chunks with an extension": [CHUNKED, *(with_header(e, b"%x;a=1" % len(e)) for e in ALL), END],
    "some chunks with an extension": [
        CHUNKED,
        *(with_header(e, b"%x%s" % (len(e), b"" if n % 20 else b";a=1")) for n, e in enumerate(ALL)),
        END,
    ],
    "trailers": [CHUNKED, *map(chunk, ALL), b"0\r\nx-took: 1\r\nx-more: 2\r\n\r\n"],
    "carriage returns": chunks([e.replace(b"\n", b"\r\n") for e in ALL]),
    "comments": chunks([e + (b": ping\n\n" if n % 9 == 0 else b"") for n, e in enumerate(ALL)]),
    "comments of their own": [
        CHUNKED,
        *(
            part
            for n, e in enumerate(ALL)
            for part in ((chunk(e), chunk(b": ping\n\n")) if n % 9 == 0 else (chunk(e),))
        ),
        END,
    ],
    "a date that moves": chunks(changed(lambda n, said: said.update(created=1_700_000_000 + n // 15))),
    "an id for each": chunks(changed(lambda n, said: said.update(id=f"c{n}"))),
    "usage in each": chunks(changed(lambda n, said: said.update(usage={"prompt_tokens": 3, "completion_tokens": n}))),
    "log probabilities": chunks(
        changed(lambda n, said: said["choices"][0].update(logprobs={"content": [{"token": "a", "logprob": -0.5}]}))
    ),
    "no log probabilities": chunks(changed(lambda n, said: said["choices"][0].update(logprobs=None))),
    "roles": chunks(changed(lambda n, said: said["choices"][0]["delta"].update(role="assistant"))),
    "empty content": chunks([part for e in EVENTS for part in (e, event(""))] + list(FINISHED)),
    "thoughts before": chunks([*thoughts(), *ALL]),
    "thoughts between": chunks([*EVENTS[:40], *thoughts(), *EVENTS[40:], *FINISHED]),
    "a tool call after": chunks([*EVENTS, tool_call(), *FINISHED]),
    "without [DONE]": chunks([*EVENTS, *FINISHED[:-1]]),
    "a length": [HEAD + b"content-length: %d\r\n\r\n" % len(BYTES), *ALL],
    "until it closes": [HEAD + b"\r\n", *ALL, None],
    "gzip": [
        HEAD + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
        *map(chunk, cut(gzip.compress(BYTES), 40)),
        END,
    ],
    "one burst": [b"".join([CHUNKED, *map(chunk, ALL), END])],
    "a burst at the end": [CHUNKED, *map(chunk, EVENTS[:30]), b"".join([*map(chunk, ALL[30:]), END])],
    "the end with the last words": [CHUNKED, *map(chunk, EVENTS[:-1]), b"".join(map(chunk, ALL[-4:])) + END],
    "a lone end": [CHUNKED, *map(chunk, ALL), b"0", b"\r\n", b"\r\n"],
    "bytes after the end": [CHUNKED, *map(chunk, ALL), END + b"HTTP/1.1 200 OK\r\n"],
    "odd pieces": [CHUNKED, *cut(b"".join(map(chunk, ALL)) + END, 73)],
    "spaces in the JSON": chunks(changed(lambda n, said: None)),
}


def test_a_client_reads_the_same_from_each_kind_of_server() -> None:
    """All on one server, one after the other: a kept connection is used again after each kind of reply."""
    spliced, through_python, passed = both(list(SERVERS.values()), "chat")
    for name, one, other in zip(SERVERS, spliced, through_python, strict=True):
        numbers, *said = read(one)
        assert numbers == list(range(1, len(numbers) + 1)), name
        assert said == list(read(other)[1:]), name
        assert "event: prediction" in one, name
    assert passed > 500


def test_a_reply_in_single_bytes_is_the_same_reply() -> None:
    slowly = cut(b"".join(map(chunk, EVENTS[15:18])), 1)
    script: list[Step] = [CHUNKED, *map(chunk, EVENTS[:15]), *slowly, *map(chunk, [*EVENTS[18:], *FINISHED]), END]
    spliced, through_python, passed = both([script], "chat")
    assert passed > 20
    assert read(spliced[0])[1:] == read(through_python[0])[1:]


def test_a_header_is_found_wherever_it_is_cut() -> None:
    """After some words that are spliced, the line that ends a field comes in two tokens, cut at each place."""
    header = "\n\n[[ ## count ## ]]\n7"
    first = ["[[ ## reason ## ]]\nIt", *[" is"] * 16]
    rest = "\n\n[[ ## answer ## ]]\nyes\n\n[[ ## sources ## ]]\n[]\n\n[[ ## completed ## ]]"
    scripts = [
        chunks([*map(event, [*first, header[:at], header[at:], rest]), *FINISHED]) for at in range(1, len(header))
    ]
    spliced, through_python, passed = both(scripts, "chat")
    for one, other in zip(spliced, through_python, strict=True):
        assert read(one)[1:] == read(other)[1:]
    assert passed > 8 * len(scripts)
