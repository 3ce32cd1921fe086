"""Finds the pages and passages that answer a question in plain words, offline.

Pages by what people ask about them (:mod:`~dspy_live.assistant.bayes`), passages within them by BM25.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from dspy_live.assistant.bayes import PageModel
from dspy_live.assistant.guides import Guide, Passage, guides
from dspy_live.assistant.terms import terms

K1, B = 1.2, 0.7
"""BM25's own: how soon a repeated term stops counting, and how much a long passage is held back."""

TITLE, HEADING, CODE = 2, 3, 0.1
"""How often a term counts in the page's title, in the section's heading, and in code."""

SHARES = (3, 1, 1)
"""How many passages of the first, the second and the third page an answer is made from."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found; ``scores`` has the part of each term in its score."""

    passage: Passage
    score: float
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PageHit:
    """A page that was found; ``hits`` are its passages, best first."""

    page: str
    score: float
    hits: Sequence[Hit]

    def best_of(self, guide: Guide) -> Passage:
        """Return the passage to show: the page's beginning where the question names no more than its topic."""
        if not self.hits:
            return guide.passages[0]
        best = self.hits[0]
        topic = set(terms(f"{guide.name} {guide.title}"))
        return guide.passages[0] if set(best.scores) <= topic else best.passage


@dataclass(frozen=True, slots=True)
class Question:
    """A question in one wording, and the page that answers it."""

    wording: str
    page: str


def read_questions(text: str) -> list[list[Question]]:
    """Read questions from TOML; one list for each, with its wordings."""
    rows = tomllib.loads(text)["question"]
    return [[Question(wording, row["page"]) for wording in row["wordings"]] for row in rows]


@dataclass(slots=True)
class Index:
    """An index over guides and known questions. Making it reads everything once; asking takes about a millisecond."""

    pages: Sequence[Guide]
    questions: Sequence[Question] = ()
    _model: PageModel = field(init=False)
    _passages: list[Passage] = field(default_factory=list)
    _counts: list[Counter[str]] = field(default_factory=list)
    _lengths: list[float] = field(default_factory=list)
    _rarity: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for guide in self.pages:
            for passage in guide.passages:
                counts = _weighted(guide, passage)
                self._passages.append(passage)
                self._counts.append(counts)
                self._lengths.append(sum(counts.values()))
        total = len(self._passages)
        seen = Counter(term for counts in self._counts for term in counts)
        self._rarity = {term: math.log(1 + (total - n + 0.5) / (n + 0.5)) for term, n in seen.items()}
        paragraphs = [(text, passage.page) for passage in self._passages for text in passage.paragraphs]
        self._model = PageModel([*paragraphs, *((question.wording, question.page) for question in self.questions)])

    def search(self, question: str, limit: int = 3) -> list[PageHit]:
        """Return the pages that fit best, best first; none for a question most of whose words are not known here."""
        wanted = set(terms(question))  # without fillers, which alone say nothing
        if sum(self._model.knows(term) for term in wanted) * 2 <= len(wanted):
            return []
        by_page: dict[str, list[Hit]] = {}
        for hit in self._hits(question):
            by_page.setdefault(hit.passage.page, []).append(hit)
        best = list(self._model.scores(question).items())[:limit]
        return [PageHit(page, score, by_page.get(page, [])) for page, score in best]

    def passages(self, question: str, limit: int = 5) -> list[Hit]:
        """Return passages to answer from: of the best three pages, most of them of the first."""
        found = [hit for page, share in zip(self.search(question), SHARES, strict=False) for hit in page.hits[:share]]
        return found[:limit]

    def _hits(self, question: str) -> list[Hit]:
        """Return all passages that have a term of the question, those that fit best first."""
        wanted = Counter(terms(question))
        mean = sum(self._lengths) / max(1, len(self._lengths))
        hits = []
        for passage, counts, length in zip(self._passages, self._counts, self._lengths, strict=True):
            scores = {}
            for term in wanted:
                if n := counts.get(term, 0.0):
                    saturated = n * (K1 + 1) / (n + K1 * (1 - B + B * length / mean))
                    scores[term] = self._rarity[term] * saturated
            if scores:
                hits.append(Hit(passage, sum(scores.values()), scores))
        hits.sort(key=lambda hit: -hit.score)
        return hits


def _weighted(guide: Guide, passage: Passage) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text, weight in (
        (f"{guide.name} {guide.title}", TITLE),
        (passage.heading, HEADING),
        (passage.prose, 1),
        ("\n".join(passage.code), CODE),
    ):
        for term in terms(text):
            counts[term] += weight  # type: ignore[assignment]  # a Counter of floats
    return counts


@lru_cache(maxsize=1)
def index() -> Index:
    """Return the index over the installed guides."""
    text = Path(__file__).with_name("questions.toml").read_text("utf-8")
    return Index(guides(), [wording for question in read_questions(text) for wording in question])
