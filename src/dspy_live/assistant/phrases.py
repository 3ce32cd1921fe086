"""The headings and other phrases of sections, compared with a question as a whole."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from dspy_live.assistant.stems import stems

_BETWEEN = re.compile(r"[,;\n]")

NEXT = 2
"""So many phrases of a section count beside its likest one: several that are a little alike tell something too."""

OF_NEXT = 0.25
"""How much each of those counts."""


class Phrases:
    """Phrases of sections.

    Args:
        phrases: of each phrase, the number of its section and its stems.
        weigh: returns what a stem counts; one that counts nothing is left out.
    """

    def __init__(self, phrases: Sequence[tuple[int, Sequence[str]]], weigh: Callable[[str], float]) -> None:
        self._sections: list[int] = []
        self._vectors: list[dict[str, float]] = []
        self._of_stem: dict[str, list[int]] = {}
        for row, found in phrases:
            weights = {stem: weight for stem in dict.fromkeys(found) if (weight := weigh(stem)) > 0}
            length = math.hypot(*weights.values())
            for stem in weights:
                self._of_stem.setdefault(stem, []).append(len(self._vectors))
            self._vectors.append({stem: weight / length for stem, weight in weights.items()})
            self._sections.append(row)

    def likeness(
        self, question: Mapping[str, float], alike: Callable[[str], tuple[float, frozenset[str]]]
    ) -> dict[int, float]:
        """Return how like a question the phrases of each section are: the likest one's cosine, and some of the next.

        Args:
            question: the question's stems, with what each counts.
            alike: returns, for a stem, the stems that may stand for it and what they count then.
        """
        products: dict[int, float] = {}
        for stem, weight in question.items():
            for phrase in self._of_stem.get(stem, ()):
                products[phrase] = products.get(phrase, 0.0) + weight * self._vectors[phrase][stem]
            share, others = alike(stem)
            for other in sorted(others):  # in one order, so that the sums are the same in every process
                for phrase in self._of_stem.get(other, ()):
                    if stem not in self._vectors[phrase]:
                        products[phrase] = products.get(phrase, 0.0) + share * weight * self._vectors[phrase][other]
        length = math.hypot(*question.values()) or 1.0
        of_section: dict[int, list[float]] = {}
        for phrase, product in products.items():
            of_section.setdefault(self._sections[phrase], []).append(product / length)
        return {row: _together(found) for row, found in of_section.items()}


def parted(texts: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return the phrases of each text, parted by commas, semicolons and ends of lines: its number, its stems."""
    parts = [(row, part) for row, text in enumerate(texts) for part in _BETWEEN.split(text)]
    return [(row, found) for (row, _), found in zip(parts, stems([part for _, part in parts]), strict=True) if found]


def _together(likenesses: list[float]) -> float:
    """Return what the phrases of one section say together: the likest, and a little of the next ones."""
    best, *others = sorted(likenesses, reverse=True)[: 1 + NEXT]
    return best + OF_NEXT * sum(others)
