"""Finds the sections of the guides that answer a question in plain words, offline.

A section is ranked by the question's words in its page's name, its heading, other phrases for it (``aliases.toml``),
its prose and its code, as BM25F does it (Robertson, Zaragoza: "The Probabilistic Relevance Framework", 2009), by what
the rest of its page has of them, and by the phrases of it that are most like the whole question. A word stands for
those that people use for it (``vocabulary.toml``) too.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path

from dspy_live.assistant.exact import named_outright
from dspy_live.assistant.guides import Guide, Passage, guides
from dspy_live.assistant.phrases import Phrases
from dspy_live.assistant.postings import Postings
from dspy_live.assistant.stems import compounds, stems, stems_of
from dspy_live.assistant.terms import Vocabulary, is_long_number, vocabulary

Aliases = Mapping[str, Mapping[str, str]]
"""Other phrases for sections, by page, then by heading; ``*`` for all sections of a page."""

ALIKE = 0.3
"""What a word counts where another one stands for it."""

INSTEAD = 0.8
"""The same, where the word itself stands on no page."""

WEAK = 0.6
"""What a word counts that stands in questions about anything."""

OF_PAGE = 0.5
"""How much the best of a page counts for each of its sections."""

OF_PHRASE = 4.0
"""How much the likest phrases count."""

OFF_TOPIC = 0.6
"""What is left of a section's score whose page is about one thing that the question does not name."""

BY_NAME = 1.25
"""What becomes of a section's score whose page is about one thing that the question names."""

OPENING = 2.0
"""What the opening of a page has more, where the question is its name and nothing else; of several words, a share."""

UNKNOWN = 5.0
"""What a word that stands on no page takes from the part of a question that a page covers."""

ELSEWHERE = 10.0
"""The same, of a word that belongs to another field."""

SPOKEN_OF = 0.25
"""The strength from which a section speaks of a word and does not only mention it."""

EACH_WORD = 0.2
"""What each word that the section speaks of adds to its confidence."""

COVERED = 0.74
"""The least confidence of an answer: nine in ten questions about other things have less."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A section that was found.

    Args:
        passage: the section.
        score: the higher the better; of one question only.
        confidence: the part of the question that the page covers, 0 to 1, and EACH_WORD for each word of the section.
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
        """True where the section speaks of enough of the question to be its answer."""
        return self.confidence >= COVERED


@dataclass(slots=True)
class _Found:
    """What the words of a question are worth, for the sections and pages that have them."""

    elsewhere: int = 0
    whole: float = 0.0
    sections: dict[int, float] = field(default_factory=dict)
    spoken_of: dict[int, int] = field(default_factory=dict)
    pages: dict[str, float] = field(default_factory=dict)


class Index:
    """The sections of some pages.

    Args:
        pages: the pages.
        aliases: other phrases for their sections.
        words: how questions are read.

    Raises :class:`ConfigurationError` where Python's SQLite was built without FTS5.
    """

    def __init__(self, pages: Sequence[Guide], aliases: Aliases | None = None, words: Vocabulary | None = None) -> None:
        self._words = vocabulary() if words is None else words
        self._passages = [passage for page in pages for passage in page.passages]
        rows = [
            _fields(page, passage, (aliases or {}).get(page.name, {})) for page in pages for passage in page.passages
        ]
        self._postings = Postings(rows, [passage.page for passage in self._passages])
        self._openings = _openings(pages, self._words.weak)
        self._phrases = Phrases([f"{row['heading']}\n{row['aliases']}" for row in rows], self._weight)

    def search(self, question: str, limit: int = 5) -> list[Hit]:
        """Return the sections that fit best, best first; none for a question of fillers and unknown words."""
        wanted = self._wanted(question)
        found = _Found(elsewhere=self._words.of_elsewhere(question))
        for stem in wanted:
            strengths = self._strengths(stem)
            weight = self._weight(stem) if strengths else 0.0
            found.whole += weight if strengths else UNKNOWN
            self._add(found, weight, strengths)
        likeness = self._phrases.likeness({stem: self._weight(stem) for stem in wanted}, self._alike)
        named = frozenset(wanted)
        hits = [self._hit(row, found, likeness.get(row, 0.0), named) for row in sorted(found.sections)]
        outright = [self._passages[row] for row in named_outright(question, self._passages)]
        others = sorted((hit for hit in hits if hit.passage not in outright), key=lambda hit: -hit.score)
        return [*(Hit(passage, math.inf, math.inf) for passage in outright), *others][:limit]

    def relevance(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return how much each of some texts has to do with a question: what the question's words in it count."""
        wanted = {stem: (self._weight(stem), *self._alike(stem)) for stem in self._wanted(question)}
        worth = []
        for found in map(set, stems([f"{text} {compounds(text)}" for text in texts])):
            counts = (
                weight * (1.0 if stem in found else share * bool(others & found))
                for stem, (weight, share, others) in wanted.items()
            )
            worth.append(sum(counts))
        return worth

    def _add(self, found: _Found, weight: float, strengths: Mapping[int, float]) -> None:
        """Add what a word is worth to the sections that have it, and to their pages."""
        best: dict[str, float] = {}
        for row, strength in strengths.items():
            found.sections[row] = found.sections.get(row, 0.0) + weight * strength
            found.spoken_of[row] = found.spoken_of.get(row, 0) + (strength > SPOKEN_OF)
            page = self._postings.pages[row]
            best[page] = max(best.get(page, 0.0), strength)
        for page, strength in best.items():
            found.pages[page] = found.pages.get(page, 0.0) + weight * strength

    def _hit(self, row: int, found: _Found, likeness: float, named: frozenset[str]) -> Hit:
        page = self._postings.pages[row]
        score = found.sections[row] + OF_PAGE * found.pages[page] + OF_PHRASE * likeness
        score += OPENING * len(named & self._openings.get(row, frozenset())) / len(named)
        if not self._words.is_about(page, named):
            score *= OFF_TOPIC
        if self._words.is_named(page, named):
            score *= BY_NAME
        if found.elsewhere:  # many words of a question about another field stand here too: they prove nothing
            return Hit(self._passages[row], score, found.pages[page] / (found.whole + ELSEWHERE * found.elsewhere))
        words = found.spoken_of[row] if len(named) > 1 else 2  # of one word, no section can speak of two
        return Hit(self._passages[row], score, found.pages[page] / found.whole + EACH_WORD * words)

    def _wanted(self, question: str) -> list[str]:
        """Return the stems of a question, and of two words that the pages write as one: "rate limit", "ratelimit"."""
        found = [self._spelt(stem) for stem in stems_of(question)]
        joined = [first + second for first, second in pairwise(found)]
        kept = [stem for stem in found if not is_long_number(stem) and not self._is_amount(stem)]
        unique = dict.fromkeys([*kept, *(stem for stem in joined if stem in self._postings)])
        return [stem for stem in unique if stem not in self._words.filler]

    def _is_amount(self, stem: str) -> bool:
        """True for "10k" or "90s", where the pages have no such word: how much it is says nothing about a page."""
        return stem[0].isdigit() and stem not in self._postings and not self._words.alike(stem)

    def _spelt(self, stem: str) -> str:
        """Return a word as the pages write it, where it is unknown and nearly like one of theirs."""
        known = stem in self._postings or stem in self._words.filler or self._words.alike(stem)
        return stem if known else self._postings.nearest(stem) or stem

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
            weight = self._postings.rarity(stem)
        else:
            weight = max((self._postings.rarity(other) for other in self._words.alike(stem)), default=0.0)
        return WEAK * weight if stem in self._words.weak else weight


def _openings(pages: Sequence[Guide], weak: frozenset[str]) -> dict[int, frozenset[str]]:
    """Return the rows of the pages' openings, with the stems of each page's name, but for words of any question."""
    names = stems([page.name.replace("-", " ") for page in pages])
    rows = accumulate((len(page.passages) for page in pages), initial=0)
    return {row: frozenset(name) - weak for row, name in zip(rows, names, strict=False)}


def _fields(page: Guide, passage: Passage, aliases: Mapping[str, str]) -> dict[str, str]:
    return {
        "page": f"{page.name} {page.title} {aliases.get('*', '')}",
        "heading": passage.heading,
        "aliases": " ".join(aliases.get(passage.heading, "").split()),  # a phrase may go on in the next line
        "prose": passage.prose,
        "code": "\n".join(passage.code),
    }


@lru_cache(maxsize=1)
def index() -> Index:
    """Return the index over the installed guides."""
    text = Path(__file__).with_name("aliases.toml").read_text("utf-8")
    return Index(guides(), tomllib.loads(text))
