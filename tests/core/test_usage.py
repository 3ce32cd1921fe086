"""Usage is read from what providers really send, and adds up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.core.usage import NOTHING, LMUsage

SENT = {
    "openai": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        LMUsage(100, 50, 150, 64, 0, 20),
    ),
    "openai responses": (
        {"input_tokens": 100, "output_tokens": 50, "input_tokens_details": {"cached_tokens": 64}},
        LMUsage(100, 50, 150, 64),
    ),
    "anthropic counts the cache beside its input": (
        {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 7},
        LMUsage(97, 5, 102, 80, 7),
    ),
    "litellm counts it inside": (
        {"prompt_tokens": 97, "completion_tokens": 5, "total_tokens": 102, "cache_read_input_tokens": 80},
        LMUsage(97, 5, 102, 80),
    ),
    "reasoning beside the completion": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 115,
            "completion_tokens_details": {"reasoning_tokens": 100},
        },
        LMUsage(10, 105, 115, 0, 0, 100),
    ),
    "a gateway that counts anthropic's cache beside the prompt, and in the total": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 3150,
            "cache_read_input_tokens": 2000,
            "cache_creation_input_tokens": 1000,
        },
        LMUsage(3100, 50, 3150, 2000, 1000),
    ),
    "and one whose total leaves it out": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "cache_read_input_tokens": 2000,
            "cache_creation_input_tokens": 1000,
        },
        LMUsage(3100, 50, 3150, 2000, 1000),
    ),
    "gemini's thoughts are in the total alone": (
        {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
        LMUsage(20, 603, 623, 0, 0, 405),
    ),
    "gemini has only thought": ({"prompt_tokens": 21, "total_tokens": 81}, LMUsage(21, 60, 81, 0, 0, 60)),
    "deepseek": (
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 8},
        LMUsage(10, 5, 15, 8),
    ),
    "details may be null": (
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": None},
        LMUsage(1, 2, 3),
    ),
    "audio": (
        {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"audio_tokens": 4}},
        LMUsage(9, 2, 11, audio_tokens=4),
    ),
    "a part larger than its whole": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 99, "cache_creation_tokens": 99},
            "completion_tokens_details": {"reasoning_tokens": 99},
        },
        LMUsage(10, 5, 15, 10, 0, 5),
    ),
    "only one side and the total": ({"completion_tokens": 2, "total_tokens": 9}, LMUsage(7, 2, 9)),
    "only one side": ({"completion_tokens": 2}, LMUsage(0, 2, 2)),
    "whole floats": ({"prompt_tokens": 3.0, "completion_tokens": 2}, LMUsage(3, 2, 5)),
}


@pytest.mark.parametrize("case", SENT)
def test_usage_as_providers_send_it(case: str) -> None:
    raw, expected = SENT[case]
    assert LMUsage.parse(raw) == expected


def test_an_object_reads_like_a_mapping() -> None:
    raw = SimpleNamespace(
        prompt_tokens=4, completion_tokens=2, total_tokens=6, prompt_tokens_details=SimpleNamespace(cached_tokens=3)
    )
    assert LMUsage.parse(raw) == LMUsage(4, 2, 6, 3)


@pytest.mark.parametrize(
    "raw", [None, {}, [], "x", 3, {"prompt_tokens": -1}, {"prompt_tokens": True}, {"total_tokens": 5}]
)
def test_nothing_reported_is_none(raw: object) -> None:
    assert LMUsage.parse(raw) is None


_JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()))
_KEYS = st.sampled_from(
    "prompt_tokens completion_tokens total_tokens input_tokens cached_tokens reasoning_tokens "
    "prompt_tokens_details completion_tokens_details cache_read_input_tokens cache_creation_input_tokens".split()
)


@given(st.dictionaries(_KEYS, st.one_of(_JUNK, st.dictionaries(_KEYS, _JUNK))))
def test_any_rubbish_gives_counts_that_make_sense_or_none(raw: dict[str, object]) -> None:
    usage = LMUsage.parse(raw)
    if usage is not None:
        assert usage.cached_tokens + usage.cache_write_tokens <= usage.prompt_tokens
        assert 0 <= usage.reasoning_tokens <= usage.completion_tokens
        assert usage.total_tokens >= 0


_COUNTS = st.builds(LMUsage, *[st.integers(0, 10**9)] * 6, st.booleans(), st.integers(0, 100))


@given(_COUNTS, _COUNTS, _COUNTS)
def test_addition_has_a_zero_and_no_order(a: LMUsage, b: LMUsage, c: LMUsage) -> None:
    assert a + NOTHING == a
    assert (a + b) + c == a + (c + b)


def test_an_estimate_says_so_and_rounds_up() -> None:
    usage = LMUsage.estimate(5, 8)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.estimated) == (2, 2, 4, True)
    assert (usage + NOTHING).estimated
    assert not NOTHING
