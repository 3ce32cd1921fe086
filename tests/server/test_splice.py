"""A stream that is spliced and one that goes through Python can't be told apart by its client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, repeat
from random import Random
from typing import Any

import dspy
import pytest
from tests.runtime.http.peer import chunk
from tests.server.splice_lm import ScriptedLM, Step, compiled, event, served, splicer, steps_of
from tests.server.support import http, until

ADAPTERS: dict[str, Any] = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}

PLAIN = ["plain", " words", " of", " text", ".", " ", "\n", "\n\n", "\t", "é", " 日本", "%b", "%", "🙂", " — ", "[1]"]
ODD = ["\\", "\u00a0", "\u2028", "[[ ## ", "[", "\x7f", "\r\n", "`", "/", "\u3000", "&amp;", "{"]
MARKUP = ["<b>", "</", "]]>", '"', "\x1c"]


def reply(adapter: str, reason: str, answer: str) -> str:
    """What an LM says in an adapter's format."""
    if adapter == "chat":
        return (
            f"[[ ## reason ## ]]\n{reason}\n\n[[ ## count ## ]]\n7\n\n[[ ## answer ## ]]\n{answer}\n\n"
            '[[ ## sources ## ]]\n["a", "b"]\n\n[[ ## completed ## ]]'
        )
    if adapter == "xml":
        return (
            f"<reason>{reason}</reason>\n<count>7</count>\n<answer>{answer}</answer>\n<sources><item>a</item></sources>"
        )
    return json.dumps({"reason": reason, "count": 7, "answer": answer, "sources": ["a"]}, ensure_ascii=False)


def words(random: Random, adapter: str) -> str:
    """Text that may pass for the most part."""
    odd = ODD if adapter == "xml" else ODD + MARKUP
    plain = random.choice((1.0, 0.97, 0.7))
    return "So" + "".join(random.choice(PLAIN if random.random() < plain else odd) for _ in range(random.randrange(80)))


def pieces(random: Random, text: str) -> list[str]:
    """The text in tokens of some characters."""
    found, at = [], 0
    while at < len(text):
        size = random.choice((1, 3, 4, 5, 9))
        found.append(text[at : at + size])
        at += size
    return found


def read(text: str) -> tuple[list[int], dict[tuple[str, int], str], list[Any]]:
    """The numbers of a stream's events, the text of each field, and all other events with where they came."""
    numbers: list[int] = []
    texts: dict[tuple[str, int], str] = {}
    others: list[Any] = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if not lines:
            continue
        numbers.append(int(lines["id"].split(":")[1]))
        data = json.loads(lines["data"]) if lines["data"] != "[DONE]" else "[DONE]"
        if lines["event"] == "token":
            key = data["field"], data["lm_call"]
            texts[key] = texts.get(key, "") + data["text"]
            if data.get("last"):
                others.append(("last", *key, texts[key]))
        elif lines["event"] == "reasoning" and others[-1][0] == "reasoning":  # what comes together is one event
            others[-1][1]["text"] += data["text"]
        elif data == "[DONE]" or data.get("final", True):  # how often a value is told before depends on the pace
            others.append((lines["event"], without_times(data)))
    return numbers, texts, others


def without_times(data: Any) -> Any:
    if isinstance(data, dict):
        drop = ("duration_ms", "run_id", "id", "run", "ttft_ms", "tokens")
        return {key: without_times(value) for key, value in data.items() if key not in drop}
    return data


def stream(live: Any) -> str:
    found = http.post(live.url + "/predict/stream", json={"question": "why?"}).text
    assert found
    return found


def both(scripts: Sequence[Sequence[Step]], adapter: str) -> tuple[list[str], list[str], int]:
    """What a client reads for each script, spliced and not, and how many events passed by Python."""
    found: list[list[str]] = []
    passed = 0
    for on in (True, False):
        with compiled(on), ScriptedLM() as lm, served(lm, ADAPTERS[adapter]()) as live:
            found.append([])
            for lm.script in scripts:
                found[-1].append(stream(live))
            if on and (ours := splicer(live)) is not None:
                assert len(ours) == 0
                passed = ours.passed
    return found[0], found[1], passed


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_client_reads_the_same_with_splicing_and_without(adapter: str) -> None:
    random = Random(f"splice {adapter}")
    scripts = []
    for _ in range(12):
        said = reply(adapter, words(random, adapter), words(random, adapter))
        scripts.append(steps_of(pieces(random, said)))
    spliced, through_python, passed = both(scripts, adapter)
    assert passed > 30  # of some 250: how many come one by one depends on the machine
    for one, other in zip(spliced, through_python, strict=True):
        numbers, texts, others = read(one)
        assert numbers == list(range(1, len(numbers) + 1))
        assert (texts, others) == read(other)[1:]


def test_most_events_of_plain_text_pass_by_python() -> None:
    said = reply("chat", "Because it is so.", " ".join(["word"] * 200))
    _, _, passed = both([steps_of(pieces(Random(1), said))], "chat")
    assert passed > len(pieces(Random(1), said)) * 0.5


def test_without_the_compiled_part_nothing_is_spliced() -> None:
    with compiled(False), ScriptedLM() as lm, served(lm, dspy.ChatAdapter()) as live:
        assert splicer(live) is None


def test_a_reply_that_breaks_off_while_it_is_spliced_is_an_error_event() -> None:
    said = reply("chat", "Because.", "word " * 50)
    steps: list[Step] = [*steps_of(pieces(Random(1), said))[:40], None]
    spliced, through_python, passed = both([steps], "chat")
    assert passed > 10
    for text in (spliced[0], through_python[0]):
        assert "event: error" in text
    assert read(spliced[0])[1:] == read(through_python[0])[1:]


def test_the_lm_sees_at_once_that_the_client_of_a_spliced_stream_has_left() -> None:
    begun = steps_of(["[[ ## reason ## ]]\nBecause.\n\n[[ ## count ## ]]\n7\n\n[[ ## answer ## ]]\n"])[:2]
    endless = chain(begun, repeat(chunk(event("word "))))
    with compiled(True), ScriptedLM(endless) as lm, served(lm, dspy.ChatAdapter()) as live:
        with http.stream("POST", live.url + "/predict/stream", json={"question": "why?"}) as response:
            lines = response.iter_lines()
            for _ in range(200):
                next(lines)
        until(lambda: lm.left == 1)
        ours = splicer(live)
        assert ours is not None
        until(lambda: len(ours) == 0)
