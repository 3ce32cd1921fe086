"""A classifier of texts by page, learnt from texts whose page is known: complement naive Bayes.

Rennie, Shih, Teevan and Karger, "Tackling the Poor Assumptions of Naive Bayes Text Classifiers" (ICML 2003): a clue
speaks for a page by how rare it is in the texts of all *other* pages, of which there are more to count. Learning is
one pass of counting, so that nothing has to be stored beside the texts, and every score is a sum over clues.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from dspy_live.assistant.terms import literal_stems, terms

SMOOTHING = 1.0
"""The weight of each clue in the other pages' texts before any is counted."""


def clues(text: str) -> set[str]:
    """Return a text's clues: its terms, and the stems of its words and pairs of words, fillers too."""
    words = literal_stems(text)
    return {*terms(text), *(f"={word}" for word in words), *(f"={one} {two}" for one, two in pairwise(words))}


class PageModel:
    """Scores pages for a text.

    Args:
        texts: pairs of a text and the page that it is about.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        known = [(clues(text), page) for text, page in texts]
        seen = Counter(clue for found, _ in known for clue in found)
        self._rarity = {clue: math.log((1 + len(known)) / (1 + n)) + 1 for clue, n in seen.items()}
        self._mass: dict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._of_page: Counter[str] = Counter()
        for found, page in known:
            for clue, weight in self._weights(found).items():
                self._mass[clue][page] += weight
                self._of_page[page] += weight  # type: ignore[assignment]  # a Counter of floats
        self.pages: Sequence[str] = sorted(self._of_page)
        whole, room = sum(self._of_page.values()), SMOOTHING * len(seen)
        self._others = {page: whole - own + room for page, own in self._of_page.items()}

    def knows(self, clue: str) -> bool:
        """True for a clue that some text had."""
        return clue in self._rarity

    def scores(self, text: str) -> dict[str, float]:
        """Return each page's score, best first: how much more the text's clues speak for it than for the mean page.

        Empty where no clue is known.
        """
        found = dict.fromkeys(self.pages, 0.0)
        weights = self._weights(clues(text))
        if not weights:
            return {}
        for clue, weight in weights.items():
            own = self._mass[clue]
            total = sum(own.values()) + SMOOTHING
            for page in self.pages:
                found[page] -= weight * math.log((total - own.get(page, 0.0)) / self._others[page])
        mean = sum(found.values()) / len(found)
        return {page: found[page] - mean for page in sorted(found, key=lambda page: (-found[page], page))}

    def _weights(self, found: Iterable[str]) -> Mapping[str, float]:
        """Return the known ones of some clues, the rarer the heavier, as a vector of length 1."""
        weights = {clue: self._rarity[clue] for clue in found if clue in self._rarity}
        length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        return {clue: weight / length for clue, weight in weights.items()}
