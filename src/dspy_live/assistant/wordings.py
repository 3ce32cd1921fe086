"""Which page people mean by a wording: the words and pairs of neighbours that phrases for its sections consist of.

A page's phrases are a sample of how people ask for it. The likelihood of a question under each sample is naive Bayes
(Manning, Raghavan, Schütze: "Introduction to Information Retrieval", 2008, chapter 13). Pairs tell what single words
don't: "switch to … is down" stands in phrases for one page, "switch" and "down" in those for many.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from itertools import pairwise

UNSEEN = 0.3
"""How often a word counts as seen that a page's phrases don't have."""


class Wordings:
    """The wordings of some pages.

    Args:
        phrases: of each phrase, its page and its stems, in their order.
        filler: stems that count in pairs only.
    """

    def __init__(self, phrases: Iterable[tuple[str, Sequence[str]]], filler: Set[str] = frozenset()) -> None:
        self._filler = filler
        self._counts: dict[str, Counter[str]] = {}
        self._lengths: Counter[str] = Counter()
        self._phrases: Counter[str] = Counter()
        for page, stems in phrases:
            self._phrases[page] += 1
            for part in set(self._parts(stems)):
                self._counts.setdefault(part, Counter())[page] += 1
                self._lengths[page] += 1

    def likelihoods(self, stems: Sequence[str]) -> dict[str, float]:
        """Return, for each page, the logarithm of how likely it is that a question of these stems means it.

        Unknown stems tell nothing. A page with more phrases is one that people ask for in more ways.
        """
        known = [part for part in self._parts(stems) if part in self._counts]
        unseen = UNSEEN * len(self._counts)
        found = {
            page: math.log(self._phrases[page]) - len(known) * math.log(length + unseen)
            for page, length in self._lengths.items()
        }
        for part in known:
            for page, count in self._counts[part].items():
                found[page] += math.log(1 + count / UNSEEN)
        return found

    def familiar(self, stems: Sequence[str]) -> float:
        """Return the part of a question's pairs of neighbours that stand in phrases too, 0 to 1; 1 without a pair."""
        pairs = [" ".join(pair) for pair in pairwise(stems)]
        return sum(pair in self._counts for pair in pairs) / len(pairs) if pairs else 1.0

    def _parts(self, stems: Sequence[str]) -> list[str]:
        return [*(stem for stem in stems if stem not in self._filler), *(" ".join(pair) for pair in pairwise(stems))]
