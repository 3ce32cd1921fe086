"""Finds the passages that answer a question in plain words: BM25 over the guides' sections, offline."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from dspy_live.assistant.guides import Guide, Passage, guides
from dspy_live.assistant.words import literal, terms

K1, B = 1.2, 0.7
"""BM25's own: how soon a repeated term stops counting, and how much a long passage is held back."""

TITLE, HEADING, CODE = 2, 3, 0.1
"""How often a term counts in the page's title, in the section's heading, and in code."""

REST = 0.6
"""What a page's other passages add to its best one, together: the share of their mean of the next two."""

TOPIC = 2.0
"""What a term adds that is one of the page's own topics, for a topic that only this page has."""

NAMED = 3.0
"""What a term adds that is the page's own name."""

ASKED, DOUBT, LITERAL = 2.0, 2.0, 0.6
"""How much a clue counts that people use when they ask about a page, how many uses it takes to believe that, and what
a word or a pair of words as written counts beside a term."""

NEIGHBOURS, LIKENESS = 5, 4.0
"""How many known questions of a page are looked at that are most like this one, and what one adds that is the same."""

ALIKE, SAME = 0.9, 15.0
"""From what likeness on a question counts as one that is known, and what its page gets for being the same."""

TOPICS: dict[str, str] = {
    "assistant": "assistant shell convert conversion codemod explain trial load diff command"
    " overwrite preview idempotent",
    "async": "async await blocking asyncify aforward acall forward method coroutine parallel gather same"
    " many state share handler turn fastapi event_loop starlette django",
    "batch": "batch checkpoint resume rows inputs file csv jsonl crash progress bar window order"
    " dataset item rerun finished overnight job lines",
    "execution": "execution native thread inline auto greenlet lock deadlock worker mode forward blocking synchronous"
    " syncify nested inside pool cpu",
    "streaming": "stream token listener field status message restart emit chunk partial generator event print"
    " tool notebook predictor cached adapter piece live thinking reasoning ui",
    "backpressure": "backpressure slow consumer reader buffer overflow coalesce drop_oldest adaptive bounded"
    " memory size waiting full lost merge keep pace",
    "timeouts": "timeout deadline cancel silence idle disconnect swallow catch seconds give pay half"
    " hang long time finally closed button",
    "retries": "retry backoff jitter rate quota 429 503 minute concurrency limit fallback fall back breaker"
    " circuit shed again fail dead overload queue provider 5xx throttle rpm tpm semaphore once",
    "layers": "layer order compose runtime custom write inside outside single_flight"
    " slot restartable check_order outermost identical",
    "usage": "usage cost price budget export count ledger prompt completion unpriced token many alert day break"
    " spreadsheet 402 postgres record month",
    "caching": "cache hit miss rollout_id redis clear prune size answer statistics reuse pickle store stale valkey",
    "logging": "log structured rotate redact secret file level json prompts line handler debug traceback warning",
    "observability": "prometheus metrics trace opentelemetry span latency duration collector dashboard label"
    " observer rate active",
    "serving": "serve http sse route openai chat key auth mount deploy shutdown drain port address host"
    " endpoint health playground openapi error 422 code reload curl docker kubernetes"
    " balancer web network browser body",
    "websocket": "websocket frame socket credit connection ws frame bidirectional first",
    "rust": "rust tokio crate axum serde future permit macro struct",
    "testing": "test pytest simulate fault mock seed pace offline deterministic scripted clock"
    " fixture chaos benchmark ci",
}
"""What each page is about, in the words of someone who has not read it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found, with the terms that found it and what each added."""

    passage: Passage
    score: float
    why: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PageHit:
    """A page that was found; ``hits`` are its passages, best first."""

    page: str
    score: float
    hits: Sequence[Hit]

    def best_of(self, guide: Guide) -> Passage:
        """Return the passage to show: the page's beginning where the question names no more than its topic."""
        best = self.hits[0]
        topic = set(terms(f"{guide.name} {guide.title}"))
        return guide.passages[0] if set(best.why) <= topic else best.passage


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in somebody's words, and the page that answers it."""

    wording: str
    page: str


def read_asked(text: str) -> list[list[Asked]]:
    """Read questions from TOML; one list for each question, with its wordings."""
    rows = tomllib.loads(text)["question"]
    return [[Asked(wording, row["page"]) for wording in row["wordings"]] for row in rows]


@dataclass(slots=True)
class Index:
    """An index over guides. Making it reads everything once; asking costs a few hundred additions."""

    pages: Sequence[Guide]
    asked: Sequence[Asked] = ()
    _passages: list[Passage] = field(default_factory=list)
    _counts: list[Counter[str]] = field(default_factory=list)
    _lengths: list[float] = field(default_factory=list)
    _rarity: dict[str, float] = field(default_factory=dict)
    _topics: dict[str, dict[str, float]] = field(default_factory=dict)
    _asked: dict[str, Counter[str]] = field(default_factory=dict)
    _known: list[tuple[str, float]] = field(default_factory=list)
    _having: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for guide in self.pages:
            for passage in guide.passages:
                counts = _weighted(guide, passage)
                self._passages.append(passage)
                self._counts.append(counts)
                self._lengths.append(sum(counts.values()))
        topics = {g.name: set(terms(f"{g.name} {g.title} {TOPICS.get(g.name, '')}")) for g in self.pages}
        shared = Counter(term for own in topics.values() for term in own)
        self._topics = {page: {term: TOPIC / shared[term] for term in own} for page, own in topics.items()}
        for i, question in enumerate(self.asked):
            for clue in clues(question.wording):
                self._asked.setdefault(clue, Counter())[question.page] += 1
                self._having.setdefault(clue, []).append(i)
        self._known = [(question.page, self._size(clues(question.wording))) for question in self.asked]
        total = len(self._passages)
        seen = Counter(term for counts in self._counts for term in counts)
        self._rarity = {term: math.log(1 + (total - n + 0.5) / (n + 0.5)) for term, n in seen.items()}

    def passages(self, question: str, limit: int = 5) -> list[Hit]:
        """Return the passages that fit best, best first; none when no term of the question is known."""
        wanted = Counter(terms(question))
        mean = sum(self._lengths) / max(1, len(self._lengths))
        hits = []
        for passage, counts, length in zip(self._passages, self._counts, self._lengths, strict=True):
            why = {}
            for term in wanted:
                if n := counts.get(term, 0.0):
                    saturated = n * (K1 + 1) / (n + K1 * (1 - B + B * length / mean))
                    why[term] = self._rarity[term] * saturated
            if why:
                hits.append(Hit(passage, sum(why.values()), why))
        hits.sort(key=lambda hit: (-hit.score, hit.passage.page))
        return hits[:limit]

    def search(self, question: str, limit: int = 3) -> list[PageHit]:
        """Return the pages that fit best, best first.

        A page counts by its best passage, a little by the next two, by the terms that are its topic, and by those
        that people use when they ask about it.
        """
        wanted = frozenset(terms(question))
        if not any(term in self._rarity or term in self._having for term in wanted):
            return []  # fillers alone say nothing
        habit = self._habit(clues(question))
        by_page: dict[str, list[Hit]] = {}
        for hit in self.passages(question, limit=len(self._passages)):
            by_page.setdefault(hit.passage.page, []).append(hit)
        for guide in self.pages:  # a page may be about a word that it never uses
            if guide.passages and (wanted & self._topics[guide.name].keys() or guide.name in habit):
                by_page.setdefault(guide.name, [Hit(guide.passages[0], 0.0, {})])
        pages = [
            PageHit(page, self._score(page, hits, wanted) + habit.get(page, 0.0), hits)
            for page, hits in by_page.items()
        ]
        pages.sort(key=lambda page: (-page.score, page.page))
        return pages[:limit]

    def _habit(self, wanted: Mapping[str, float]) -> dict[str, float]:
        """What each page gets for clues that known questions about it have, and those about others do not."""
        found: dict[str, float] = {}
        pages = max(1, len(self.pages))
        for clue, weight in wanted.items():
            uses: Mapping[str, int] = self._asked.get(clue, {})
            total = sum(uses.values()) + DOUBT
            for page, n in uses.items():
                surprise = math.log((n * pages + DOUBT) / total)
                found[page] = found.get(page, 0.0) + ASKED * weight * max(0.0, surprise) * n / total
        for page, alike in self._alike(wanted).items():
            near = LIKENESS * sum(likeness**2 for likeness in alike[:NEIGHBOURS])
            found[page] = found.get(page, 0.0) + near + (SAME if alike[0] >= ALIKE else 0.0)
        return found

    def _alike(self, wanted: Mapping[str, float]) -> dict[str, list[float]]:
        """How much the known questions of each page are like this one, from 0 to 1, the most alike first."""
        common: dict[int, float] = {}
        for clue, weight in wanted.items():
            for i in self._having.get(clue, ()):
                common[i] = common.get(i, 0.0) + (weight * self._weight(clue)) ** 2
        size = self._size(wanted)
        by_page: dict[str, list[float]] = {}
        for i, both in common.items():
            page, own = self._known[i]
            by_page.setdefault(page, []).append(both / math.sqrt(size * own))
        return {page: sorted(alike, reverse=True) for page, alike in by_page.items()}

    def _weight(self, clue: str) -> float:
        return math.log(1 + len(self.asked) / (1 + len(self._having.get(clue, ()))))

    def _size(self, some: Mapping[str, float]) -> float:
        return sum((weight * self._weight(clue)) ** 2 for clue, weight in some.items())

    def _score(self, page: str, hits: Sequence[Hit], wanted: frozenset[str]) -> float:
        return hits[0].score + REST * sum(hit.score for hit in hits[1:3]) / 2 + self._topic(page, wanted)

    def _topic(self, page: str, wanted: frozenset[str]) -> float:
        """What the question's terms add that are the page's topic, each by how rare it is."""
        own = self._topics.get(page, {})
        named = NAMED * len(wanted & set(terms(page)))
        return named + sum(own[term] * max(1.0, self._rarity.get(term, 1.0)) for term in wanted if term in own)


def clues(question: str) -> dict[str, float]:
    """Return what a question is known by, with weights: its terms, and its words and pairs of words as they stand."""
    words = literal(question)
    found = {f"={word}": LITERAL for word in words}
    found |= {f"={one} {two}": LITERAL for one, two in pairwise(words)}
    return found | dict.fromkeys(terms(question), 1.0)


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
    return Index(guides(), [wording for question in read_asked(text) for wording in question])
