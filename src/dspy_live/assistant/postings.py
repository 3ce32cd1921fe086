"""Where each word stands: the sections of the pages, word by word and field by field."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from dspy_live.assistant.reading import nearest
from dspy_live.assistant.stems import compounds, stems

FIELDS: dict[str, tuple[float, float]] = {
    "page": (1.0, 0.0),
    "heading": (3.0, 0.3),
    "prose": (0.35, 0.6),
    "code": (0.2, 0.6),
}
"""Of each field of a section: what a word in it counts, and by how much a long field makes it count less, 0 to 1."""

NAMING = ("page", "heading")
"""The fields that say what a section is about."""

SATURATION = 2.5
"""The weight of a word at which it has half of its effect: the tenth "stream" adds next to nothing."""


class Postings:
    """The words of some sections.

    Args:
        sections: the text of each section's fields.
        pages: the page of each section.
    """

    def __init__(self, sections: Sequence[Mapping[str, str]], pages: Sequence[str]) -> None:
        self.pages = list(pages)
        self._counts: dict[str, dict[int, float]] = {}
        naming: dict[str, set[str]] = {}
        using: dict[str, set[str]] = {}
        for field, (weight, shortening) in FIELDS.items():
            texts = [f"{section[field]} {compounds(section[field])}" for section in sections]
            words = stems(texts)
            usual = max(1.0, sum(map(len, words)) / max(1, len(words)))
            for row, found in enumerate(words):
                length = 1 - shortening + shortening * len(found) / usual
                for stem, count in Counter(found).items():
                    rows = self._counts.setdefault(stem, {})
                    rows[row] = rows.get(row, 0.0) + weight * (1 + math.log(count)) / length
                    (naming if field in NAMING else using).setdefault(stem, set()).add(self.pages[row])
        self._named = list(naming)
        self._spread = {stem: len(naming.get(stem) or using[stem]) for stem in self._counts}
        self._page_count = len(set(self.pages))

    def __contains__(self, stem: object) -> bool:
        return stem in self._counts

    def nearest(self, stem: str) -> str | None:
        """Return the word of a page's name or a heading that is written nearly like an unknown one."""
        return nearest(stem, self._named)

    def strengths(self, stem: str) -> dict[int, float]:
        """Return the sections that have a word, with how much they speak of it: 0 to 1."""
        return {row: count / (SATURATION + count) for row, count in self._counts.get(stem, {}).items()}

    def rarity(self, stem: str) -> float:
        """Return how well a word tells pages apart: the fewer are named by it, the higher."""
        spread = self._spread.get(stem, self._page_count)
        return 1.5 * math.log(1 + (self._page_count - spread + 0.5) / (spread + 0.5))
