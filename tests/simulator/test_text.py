"""The simulated LM's tokens and prose."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.simulator.prompt import question, tool_turns
from dspy_live.simulator.prose import BLOCK, Prose, blocks, keywords
from dspy_live.simulator.tokens import BIG, cost, count, count_prompt, pieces


@given(st.text())
def test_tokens_join_to_the_text_and_are_short(text: str) -> None:
    parts = pieces(text)
    assert "".join(parts) == text
    assert count(text) == len(parts)
    assert all(0 < len(part) <= BIG and cost(part) == 1 for part in parts)


def test_markers_are_cut_into_several_tokens() -> None:
    assert pieces("[[ ## answer ## ]]\nYes, 1234.") == [
        *["[[", " ##", " answer", " ##", " ]]", "\n", "Yes", ",", " 123", "4", "."],
    ]


@given(st.integers(1, 400), st.integers(0, 99), st.text(max_size=60))
def test_prose_is_exactly_as_long_as_asked_and_ends_with_one_stop(length: int, seed: int, asked: str) -> None:
    tokens = list(Prose(Random(seed), keywords(asked)).tokens(length))
    assert len(tokens) == length
    text = "".join(tokens)
    assert text.endswith(".")
    assert not text.endswith("..")
    assert "[[" not in text


def test_prose_is_about_the_question() -> None:
    words = keywords("Why do the volcanoes of Iceland erupt so often?")
    assert words == ["volcanoes", "Iceland", "erupt", "often"]
    text = "".join(Prose(Random(1), words).tokens(60))
    assert "volcanoes, Iceland, erupt and often: " in text


def test_prose_of_no_exact_length_ends_with_its_sentence() -> None:
    for seed in range(20):
        tokens = list(Prose(Random(seed), ["cats"]).about(30))
        assert 30 <= len(tokens) < 70
        assert tokens[-1] == "."


def test_long_prose_is_lazy_and_numbered() -> None:
    tokens = Prose(Random(1), []).tokens(10**12)
    text = "".join(next(tokens) for _ in range(20_000))
    assert "(50) " in text


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_blocks_are_numbered_and_of_the_size_asked(size: int) -> None:
    parts = list(blocks(size))
    assert sum(map(len, parts)) == size
    assert [int(part[1:9]) for part in parts if len(part) == BLOCK] == list(range(size // BLOCK))


def test_a_prompt_counts_its_parts() -> None:
    plain = [{"role": "user", "content": "one two three"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "one two three"}, {"type": "image_url"}]}]
    assert count_prompt(plain) == 2 + 4 + 3
    assert count_prompt(parts) == 2 + 4 + 3 + 85
    assert count_prompt([{"role": "assistant", "content": None}]) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[ ## question ## ]]\nWhy?\n\nRespond with the corresponding output fields, starting …", "Why?"),
        ("<question>\nWhy?\n</question>\n\nRespond with the corresponding output fields wrapped …", "Why?"),
        (
            "[[ ## question ## ]]\nWhy?\n\n[[ ## trajectory ## ]]\n[[ ## thought_0 ## ]]\nHm\n[[ ## tool_name_0 ## ]]",
            "Why?",
        ),
        ("[[ ## tools ## ]]\n['search']\n\n[[ ## question ## ]]\nWhy?", "Why?"),
        ("Why? [sim fault=429]", "Why?"),
        ("question: Why?", "question: Why?"),
    ],
)
def test_the_question_is_found_among_the_markup(text: str, expected: str) -> None:
    assert question({"messages": [{"role": "user", "content": text}]}) == expected


def test_turns_with_tools_are_counted_since_the_question() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "x", "arguments": "{}"}}]}
    result = {"role": "tool", "content": "found"}
    asked = {"role": "user", "content": "Why?"}
    assert tool_turns({"messages": [asked]}) == 0
    assert tool_turns({"messages": [asked, call, result, call, result]}) == 2
    assert tool_turns({"messages": [asked, call, result, asked]}) == 0
    assert tool_turns({"messages": [asked, result]}) == 1
