"""What the field parsers cost, beside DSPy's own stream listener on the same tokens.

    python bench/parsers.py [--quick]

Each grammar reads replies of 10 KB to 10 MB, in tokens of 2 to 8 characters as a language model sends
them (a line end every 25th). Printed are microseconds per token, how that grows from the smallest reply
on (1.0 is linear), and how many times longer DSPy's listener takes; it is left out where it would take
longer than a few seconds. Both get the same tokens; each figure is the best of three runs, of one from
1 MB on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from itertools import chain, cycle, islice
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="dspy-live-bench-"))
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

import dspy
from dspy.adapters import ChatAdapter, JSONAdapter, XMLAdapter
from dspy.streaming import StreamListener

from dspy_live.sansio.fields import FieldSpec, Grammar, make_parser

WORDS = "the quick brown fox jumps over a lazy dog, and then some (more) words follow: one - two.".split()
FRAMES: dict[Grammar, tuple[str, str]] = {
    "chat": ("[[ ## answer ## ]]\nSo", "\n\n[[ ## completed ## ]]\n"),
    "json": ('{\n  "answer": "So', '"\n}'),
    "xml": ("<answer>\nSo", "\n</answer>"),
}
ADAPTERS: dict[Grammar, Any] = {"chat": ChatAdapter(), "json": JSONAdapter(), "xml": XMLAdapter()}
SECONDS = 6.0


def body(grammar: Grammar) -> list[str]:
    """Return a thousand tokens of text."""
    rng = random.Random(7)
    line_end = "\\n" if grammar == "json" else "\n"
    return [line_end if number % 25 == 24 else " " + rng.choice(WORDS) for number in range(1000)]


def reply(grammar: Grammar, size: int) -> Iterator[str]:
    """Return the tokens of a reply of about ``size`` characters."""
    before, after = FRAMES[grammar]
    tokens = body(grammar)
    return chain([before], islice(cycle(tokens), count(grammar, size)), [after])


def count(grammar: Grammar, size: int) -> int:
    return size * 1000 // len("".join(body(grammar)))


def ours(grammar: Grammar, size: int) -> float:
    """Return microseconds per token."""
    parser = make_parser(grammar, [FieldSpec("answer")])
    feed, tokens = parser.feed, reply(grammar, size)
    start = time.perf_counter()
    for token in tokens:
        feed(token)
    parser.finish()
    took = time.perf_counter() - start
    assert len(parser.texts()["answer"]) > size * 0.9
    return took / count(grammar, size) * 1e6


def theirs(grammar: Grammar, size: int) -> float:
    """Return microseconds per token of DSPy's listener."""
    predict = dspy.Predict("question -> answer")
    listener = StreamListener("answer", predict=predict, predict_name="self")

    def chunk(token: str) -> Any:
        return SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=token))])

    before, after = FRAMES[grammar]
    first, rest = before[:-2], before[-2:]  # it drops a field whose marker and text are one token
    chunks = [chunk(token) for token in body(grammar)]
    tokens = chain([chunk(first), chunk(rest)], islice(cycle(chunks), count(grammar, size)), [chunk(after)])
    with dspy.context(adapter=ADAPTERS[grammar]):
        start = time.perf_counter()
        for token in tokens:
            listener.receive(token)
        return (time.perf_counter() - start) / count(grammar, size) * 1e6


def compare(grammar: Grammar, sizes: list[int]) -> None:
    base: float | None = None
    per_token, growth = 0.0, 1.0
    for size in sizes:
        tries = 3 if size < 1_000_000 else 1
        mine = min(ours(grammar, size) for _ in range(tries))
        base = base or mine
        line = f"{grammar:5} {size // 1000:>7} KB {mine:>10.3f} {mine / base:>8.2f}"
        # Its cost per token may itself grow with the size.
        if per_token * growth * count(grammar, size) / 1e6 < SECONDS:
            other = min(theirs(grammar, size) for _ in range(tries))
            growth = max(1.0, other / per_token) if per_token else 1.0
            per_token = other
            line += f" {other:>12.3f} {other / mine:>8.1f}"
        else:
            line += f" {'too long':>12} {'-':>8}"
            per_token *= 10
        print(line, flush=True)


def pieces(grammar: Grammar, size: int, joined: int) -> float:
    """Return megacharacters per second when ``joined`` tokens come at once."""
    tokens = list(reply(grammar, size))
    chunks = ["".join(tokens[at : at + joined]) for at in range(0, len(tokens), joined)]
    parser = make_parser(grammar, [FieldSpec("answer")])
    start = time.perf_counter()
    for chunk in chunks:
        parser.feed(chunk)
    parser.finish()
    return size / (time.perf_counter() - start) / 1e6


def container(size: int) -> tuple[float, int]:
    """Return microseconds per token, and the number of values sent, of a list of that many characters."""
    raw = json.dumps({"answer": ["some words here"] * (size // 19)})
    chunks = [raw[at : at + 5] for at in range(0, len(raw), 5)]
    parser = make_parser("json", [FieldSpec("answer", "container")])
    start = time.perf_counter()
    sent = sum(len(parser.feed(chunk)) for chunk in chunks)
    return (time.perf_counter() - start) / len(chunks) * 1e6, sent


def memory(grammar: Grammar, size: int) -> float:
    """Return the bytes that a parser holds per character of a reply, at its end."""
    parser = make_parser(grammar, [FieldSpec("answer")])
    tracemalloc.start()
    for token in islice(reply(grammar, size), count(grammar, size)):
        parser.feed(token)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / size


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--quick", action="store_true", help="stop at 100 KB")
    sizes = [10_000, 100_000] if arguments.parse_args().quick else [10_000, 100_000, 1_000_000, 10_000_000]
    print(f"{'':5} {'reply':>10} {'us/token':>10} {'growth':>8} {'DSPy us':>12} {'ratio':>8}")
    for grammar in FRAMES:
        compare(grammar, sizes)
    print("\ntokens joined per chunk, million characters a second (1 MB)")
    for grammar in FRAMES:
        print(
            f"{grammar:5} "
            + "  ".join(f"{joined}: {pieces(grammar, 1_000_000, joined):.0f}" for joined in (1, 8, 64, 10**9))
        )
    print("\na JSON list in tokens of 5 characters: us/token, values sent")
    for size in sizes[:3]:
        took, sent = container(size)
        print(f"{size // 1000:>7} KB {took:>8.3f} {sent:>6}")
    print("\nbytes held per character of a reply (1 MB)")
    print("  ".join(f"{grammar}: {memory(grammar, 1_000_000):.2f}" for grammar in FRAMES))


if __name__ == "__main__":
    main()
