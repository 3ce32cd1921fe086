"""The words by which questions are read: fillers, and those that stand for each other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dspy_live.assistant.stems import stems

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Stems with a meaning for search; what each is for stands in ``vocabulary.toml``.

    Args:
        filler: left out of questions.
        same: for a stem, those that may stand for it.
    """

    filler: frozenset[str] = frozenset()
    same: Mapping[str, frozenset[str]] | None = None

    def alike(self, stem: str) -> frozenset[str]:
        """Return the stems that may stand for this one."""
        return (self.same or {}).get(stem, frozenset())


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Return the project's vocabulary."""
    data = _data()
    groups = [line.replace(",", " ") for line in data["same"].splitlines() if line.strip()]
    filler, *alike = map(frozenset, stems([data["filler"], *groups]))
    same: dict[str, frozenset[str]] = {}
    for group in alike:
        for stem in group:
            same[stem] = same.get(stem, frozenset()) | group - {stem}
    return Vocabulary(filler, same)


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text("utf-8"))


def terms(text: str) -> list[str]:
    """Return the words of a text in the order of their first use, each once.

    Filler is left out, and so are numbers but for short ones such as 429.
    """
    words = dict.fromkeys(word.lower() for word in _WORD.findall(text))
    filler = set(_data()["filler"].split())
    return [word for word in words if word not in filler and not is_long_number(word)]


def is_long_number(word: str) -> bool:
    """True for a number that is no status such as 429: it says nothing about a page."""
    return word.isdigit() and len(word) > 3
