"""How a question is read: the stems of its words in their order, the words and pairs in it, and what a slip meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from dspy_live.assistant.stems import compounds, stems

LITTLE = frozenset(
    "a an the i my me we our you your it its is are be do does did to of in on for and or with this that there".split()
)
"""Words that stand in all questions: they count in pairs only."""

SHORT = 5
"""The letters of a word below which another one is no slip of the pen but another word."""

_STATUS = re.compile("[45][0-9]{2}")


def read(questions: Sequence[str]) -> list[list[str]]:
    """Return the stems of some questions, without amounts; names such as ``max_tokens`` in one word as well."""
    return [
        [stem for stem in found if not _is_amount(stem)]
        for found in stems([f"{question} {compounds(question)}" for question in questions])
    ]


def parts(found: Sequence[str]) -> list[str]:
    """Return what a question consists of: each word and each pair of neighbours once, in one order."""
    words = (stem for stem in found if stem not in LITTLE)
    return list(dict.fromkeys([*words, *(f"{first} {second}" for first, second in pairwise(found))]))


def nearest(stem: str, words: Iterable[str]) -> str | None:
    """Return the word that is written nearly like an unknown one: what was meant, where a letter is wrong."""
    if len(stem) < SHORT:
        return None
    near = [word for word in words if len(word) >= SHORT and word[0] == stem[0] and abs(len(word) - len(stem)) < 3]
    return next(iter(difflib.get_close_matches(stem, near, n=1, cutoff=0.84)), None)


def _is_amount(stem: str) -> bool:
    """True for "10k" or "3.11", which says nothing about a page, but not for a status such as 429."""
    return stem[0].isdigit() and not _STATUS.fullmatch(stem)
