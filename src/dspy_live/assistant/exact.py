"""Sections that a question names outright: by their place, "usage: Budgets", or by the error that they are about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from dspy_live.assistant.guides import Passage

_LEAST = 12
"""The fewest letters of a message that must stand in a question: shorter ones stand in any."""


def named_outright(question: str, passages: Sequence[Passage]) -> list[int]:
    """Return which passages a question names, by their place in the sequence.

    A heading in backticks is an error message, in which ``…`` stands for what differs.
    """
    plain = _plain(question)
    return [
        row
        for row, passage in enumerate(passages)
        if plain == _plain(passage.place) or (passage.is_error and _says(plain, passage.heading))
    ]


def _says(question: str, message: str) -> bool:
    parts = [part for part in map(_plain, message.strip("`").split("…")) if part]
    if sum(map(len, parts)) < _LEAST:
        return False
    return re.search(".*".join(map(re.escape, parts)), question) is not None


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
