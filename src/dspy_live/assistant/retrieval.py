"""Finds the sections of the guides that answer a question in plain words, offline.

A section is ranked by what the question's words, and its pairs of neighbours, have meant in questions whose sections
are known (``wordings.py``), and a little by where they stand in the guides: in the page's name, its heading, its prose
and its code, as BM25F does it (Robertson, Zaragoza: "The Probabilistic Relevance Framework", 2009). So a section that
nobody has asked for yet is found too. A word stands for those that people use for it (``vocabulary.toml``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from dspy_live.assistant import reading
from dspy_live.assistant.exact import named_outright
from dspy_live.assistant.guides import Guide, Passage, guides
from dspy_live.assistant.postings import Postings
from dspy_live.assistant.stems import compounds, stems
from dspy_live.assistant.terms import Vocabulary, vocabulary
from dspy_live.assistant.wordings import ELSEWHERE, Wordings, wordings

_REASON = re.compile(r"\s*(why|what|when|which|does|is|are)\b", re.IGNORECASE)

ALIKE = 0.3
"""What a word counts where another one stands for it."""

INSTEAD = 0.8
"""The same, where the word itself stands on no page."""

OF_EXAMPLE = 0.5
"""How much an example counts in a section, where a question asks why or what and not how."""

OF_PAGE = 0.5
"""How much the best of a page counts for each of its sections."""

OF_WORDS = 0.1
"""How much it counts where the question's words stand, beside what they have meant in other questions."""

OF_NEW = 0.7
"""The same, for a section that no question has named yet."""

OPENING = 10.0
"""What the opening of a page has more, where the question is its name and nothing else."""

COVERED = 0.87
"""The least confidence of an answer."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A section that was found.

    Args:
        passage: the section.
        score: the higher the better; of one question only.
        confidence: how likely it is that the guides cover the question, 0 to 1.
    """

    passage: Passage
    score: float
    confidence: float

    @property
    def named(self) -> bool:
        """True where the question names the section itself."""
        return self.score == math.inf

    @property
    def answers(self) -> bool:
        """True where the guides are likely enough to cover the question."""
        return self.confidence >= COVERED


class Index:
    """The sections of some pages.

    Args:
        pages: the pages.
        learned: what words have meant in questions.
        words: the fillers, and the words that stand for each other.

    Raises :class:`ConfigurationError` where Python's SQLite was built without FTS5.
    """

    def __init__(
        self, pages: Sequence[Guide], learned: Wordings | None = None, words: Vocabulary | None = None
    ) -> None:
        self._words = vocabulary() if words is None else words
        self._learned = learned
        self._passages = [passage for page in pages for passage in page.passages]
        self._places = [passage.place for passage in self._passages]
        rows = [_fields(page, passage) for page in pages for passage in page.passages]
        self._postings = Postings(rows, [passage.page for passage in self._passages])
        self._openings = _openings(pages)

    def search(self, question: str, limit: int = 5) -> list[Hit]:
        """Return the sections that fit best, best first; none for a question of fillers and unknown words."""
        read = [self._spelt(stem) for stem in reading.read([question])[0]]
        wanted = self._wanted(read)
        standing = self._standing(wanted)
        opening = self._openings.get(frozenset(wanted))
        meant = self._learned.scores(read, self._places) if self._learned and wanted else None
        confidence = 1.0 if meant is None else _confidence(meant)
        outright = [self._passages[row] for row in named_outright(question, self._passages)]
        hits = [
            Hit(
                passage,
                self._score(place, meant, standing.get(row, 0.0)) + OPENING * (row == opening),
                confidence,
            )
            for row, (passage, place) in enumerate(zip(self._passages, self._places, strict=True))
            if passage not in outright and (meant or row in standing)
        ]
        hits.sort(key=lambda hit: -hit.score)
        return [*(Hit(passage, math.inf, math.inf) for passage in outright), *hits][:limit]

    def _score(self, place: str, meant: Mapping[str, float] | None, standing: float) -> float:
        if meant is None or self._learned is None:
            return standing
        return meant[place] + standing * (OF_WORDS if self._learned.knows(place) else OF_NEW)

    def relevance(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return how much each of some texts has to do with a question: what the question's words in it count.

        An example, which begins with a fence, counts less where the question asks for a reason and not for a way.
        """
        of_example = OF_EXAMPLE if _REASON.match(question) else 1.0
        read = [self._spelt(stem) for stem in reading.read([question])[0]]
        wanted = {stem: (self._weight(stem), *self._alike(stem)) for stem in self._wanted(read)}
        worth = []
        for found in map(set, stems([f"{text} {compounds(text)}" for text in texts])):
            counts = (
                weight * (1.0 if stem in found else share * bool(others & found))
                for stem, (weight, share, others) in wanted.items()
            )
            worth.append(sum(counts))
        return [
            count * (of_example if text.startswith("```") else 1.0) for text, count in zip(texts, worth, strict=True)
        ]

    def _standing(self, wanted: Sequence[str]) -> dict[int, float]:
        """Return what the words of a question are worth for the sections that have them, or whose pages do."""
        sections: dict[int, float] = {}
        pages: dict[str, float] = {}
        for stem in wanted:
            weight = self._weight(stem)
            best: dict[str, float] = {}
            for row, strength in self._strengths(stem).items():
                sections[row] = sections.get(row, 0.0) + weight * strength
                page = self._postings.pages[row]
                best[page] = max(best.get(page, 0.0), weight * strength)
            for page, strength in best.items():
                pages[page] = pages.get(page, 0.0) + strength
        return {row: worth + OF_PAGE * pages[self._postings.pages[row]] for row, worth in sections.items()}

    def _wanted(self, read: Sequence[str]) -> list[str]:
        """Return what to look for: each stem once, and two that the pages write as one ("rate limit", "ratelimit")."""
        joined = (first + second for first, second in pairwise(read))
        unique = dict.fromkeys([*read, *(stem for stem in joined if stem in self._postings)])
        return [stem for stem in unique if stem not in self._words.filler]

    def _spelt(self, stem: str) -> str:
        """Return a word as pages and other questions write it, where it is unknown and nearly like one of theirs."""
        learned = self._learned
        if stem in self._postings or stem in self._words.filler or self._words.alike(stem):
            return stem
        if learned is None:
            return self._postings.nearest(stem) or stem
        return stem if stem in learned else learned.nearest(stem) or stem

    def _strengths(self, stem: str) -> dict[int, float]:
        """Return the sections that speak of a word, or of one that stands for it."""
        strengths = self._postings.strengths(stem)
        share, others = self._alike(stem)
        for other in others:
            for row, strength in self._postings.strengths(other).items():
                strengths[row] = max(strengths.get(row, 0.0), share * strength)
        return strengths

    def _alike(self, stem: str) -> tuple[float, frozenset[str]]:
        return (ALIKE if stem in self._postings else INSTEAD), self._words.alike(stem)

    def _weight(self, stem: str) -> float:
        """Return what a word counts: the rarer the more; that of an unknown word is the rarest that stands for it."""
        if stem in self._words.filler:
            return 0.0
        if stem in self._postings:
            return self._postings.rarity(stem)
        return max((self._postings.rarity(other) for other in self._words.alike(stem)), default=0.0)


def _confidence(meant: Mapping[str, float]) -> float:
    """Return how likely it is that any section is meant, and nothing else, from the logarithms of the odds."""
    most = max(meant.values())
    odds = {place: math.exp(value - most) for place, value in meant.items()}
    return 1 - odds[ELSEWHERE] / sum(odds.values())


def _openings(pages: Sequence[Guide]) -> dict[frozenset[str], int]:
    """Return the rows of the pages' openings, by the stems of each page's name."""
    names = stems([page.name.replace("-", " ") for page in pages])
    rows = accumulate((len(page.passages) for page in pages), initial=0)
    return dict(zip(map(frozenset, names), rows, strict=False))


def _fields(page: Guide, passage: Passage) -> dict[str, str]:
    return {
        "page": f"{page.name} {page.title}",
        "heading": passage.heading,
        "prose": passage.prose,
        "code": "\n".join(passage.code),
    }


@lru_cache(maxsize=1)
def index() -> Index:
    """Return the index over the installed guides."""
    return Index(guides(), wordings())
