"""Finds the sections of the guides that answer a question in plain words, offline.

A section is ranked by the question's words in its page's name, its heading, other phrases for it (``aliases.toml``),
its prose and its code, as BM25F does it (Robertson, Zaragoza: "The Probabilistic Relevance Framework", 2009), by what
the rest of its page has of them, by the phrases of it that are most like the whole question, and by how likely people
who mean its page are to word it so. A word stands for those that people use for it (``vocabulary.toml``) too.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path

from dspy_live.assistant.exact import named_outright
from dspy_live.assistant.guides import Guide, Passage, guides
from dspy_live.assistant.phrases import Phrases, parted
from dspy_live.assistant.postings import Postings
from dspy_live.assistant.stems import compounds, stems, stems_of
from dspy_live.assistant.terms import Vocabulary, vocabulary
from dspy_live.assistant.wordings import Wordings

_REASON = re.compile(r"\s*(why|what|when|which|does|is|are)\b", re.IGNORECASE)
_STATUS = re.compile("[45][0-9]{2}")

Aliases = Mapping[str, Mapping[str, str]]
"""Other phrases for sections, by page, then by heading; ``*`` for all sections of a page."""

ALIKE = 0.3
"""What a word counts where another one stands for it."""

INSTEAD = 0.8
"""The same, where the word itself stands on no page."""

OF_EXAMPLE = 0.5
"""How much an example counts in a section, where a question asks why or what and not how."""

OF_PAGE = 0.5
"""How much the best of a page counts for each of its sections."""

OF_PHRASE = 3.0
"""How much the likest phrases count."""

OF_WORDING = 0.4
"""How much it counts that a page's phrases are worded like the question."""

NO_ERROR = 1.0
"""What an entry about an error message has less, where the question speaks of no error."""

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

EACH_PAIR = 0.2
"""What it adds that all of the question's pairs of neighbours are known: a share for some of them."""

COVERED = 0.84
"""The least confidence of an answer: more than nine in ten questions about other things have less."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A section that was found.

    Args:
        passage: the section.
        score: the higher the better; of one question only.
        confidence: the part of the question that the page covers, 0 to 1, EACH_WORD for each word of the section, and
            EACH_PAIR by the pairs of the question's words that are known.
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
    of_error: bool = False
    whole: float = 0.0
    sections: dict[int, float] = field(default_factory=dict)
    spoken_of: dict[int, int] = field(default_factory=dict)
    pages: dict[str, float] = field(default_factory=dict)
    likeness: Mapping[int, float] = field(default_factory=dict)
    wordings: Mapping[str, float] = field(default_factory=dict)
    familiar: float = 0.0


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
        self._openings = _openings(pages)
        phrases = parted([f"{row['heading']}\n{row['aliases']}" for row in rows])
        self._phrases = Phrases(phrases, self._weight)
        self._wordings = Wordings([(self._postings.pages[row], found) for row, found in phrases], self._words.filler)

    def search(self, question: str, limit: int = 5) -> list[Hit]:
        """Return the sections that fit best, best first; none for a question of fillers and unknown words."""
        read = self._read(question)
        wanted = self._wanted(read)
        found = _Found(self._words.of_elsewhere(question), not self._words.error.isdisjoint(wanted))
        for stem in wanted:
            strengths = self._strengths(stem)
            weight = self._weight(stem) if strengths else 0.0
            found.whole += weight if strengths else UNKNOWN
            self._add(found, weight, strengths)
        found.likeness = self._phrases.likeness({stem: self._weight(stem) for stem in wanted}, self._alike)
        found.wordings = self._wordings.likelihoods(read)
        found.familiar = self._wordings.familiar(read)
        hits = [self._hit(row, found, frozenset(wanted)) for row in sorted(found.sections)]
        outright = [self._passages[row] for row in named_outright(question, self._passages)]
        others = sorted((hit for hit in hits if hit.passage not in outright), key=lambda hit: -hit.score)
        return [*(Hit(passage, math.inf, math.inf) for passage in outright), *others][:limit]

    def relevance(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return how much each of some texts has to do with a question: what the question's words in it count.

        An example, which begins with a fence, counts less where the question asks for a reason and not for a way.
        """
        of_example = OF_EXAMPLE if _REASON.match(question) else 1.0
        wanted = {stem: (self._weight(stem), *self._alike(stem)) for stem in self._wanted(self._read(question))}
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

    def _hit(self, row: int, found: _Found, wanted: frozenset[str]) -> Hit:
        page = self._postings.pages[row]
        score = found.sections[row] + OF_PAGE * found.pages[page] + OF_PHRASE * found.likeness.get(row, 0.0)
        score += OPENING * len(wanted & self._openings.get(row, frozenset())) / len(wanted)
        score += OF_WORDING * found.wordings.get(page, 0.0)
        if self._passages[row].is_error and not found.of_error:
            score -= NO_ERROR
        return Hit(self._passages[row], score, self._confidence(row, found, len(wanted)))

    def _confidence(self, row: int, found: _Found, wanted: int) -> float:
        covered = found.pages[self._postings.pages[row]]
        if found.elsewhere:  # many words of a question about another field stand here too: they prove nothing
            return covered / (found.whole + ELSEWHERE * found.elsewhere)
        words = found.spoken_of[row] if wanted > 1 else 2  # of one word, no section can speak of two
        return covered / found.whole + EACH_WORD * words + EACH_PAIR * found.familiar

    def _read(self, question: str) -> list[str]:
        """Return the stems of a question in their order, as the pages write them, without amounts."""
        return [self._spelt(stem) for stem in stems_of(question) if not _is_amount(stem)]

    def _wanted(self, read: Sequence[str]) -> list[str]:
        """Return what to look for: each stem once, and two that the pages write as one ("rate limit", "ratelimit")."""
        joined = (first + second for first, second in pairwise(read))
        unique = dict.fromkeys([*read, *(stem for stem in joined if stem in self._postings)])
        return [stem for stem in unique if stem not in self._words.filler]

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
            return self._postings.rarity(stem)
        return max((self._postings.rarity(other) for other in self._words.alike(stem)), default=0.0)


def _is_amount(stem: str) -> bool:
    """True for "10k" or "3.11", which says nothing about a page, but not for a status such as 429."""
    return stem[0].isdigit() and not _STATUS.fullmatch(stem)


def _openings(pages: Sequence[Guide]) -> dict[int, frozenset[str]]:
    """Return the rows of the pages' openings, with the stems of each page's name."""
    names = stems([page.name.replace("-", " ") for page in pages])
    rows = accumulate((len(page.passages) for page in pages), initial=0)
    return dict(zip(rows, map(frozenset, names), strict=False))


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
