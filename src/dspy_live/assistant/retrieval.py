"""Finds the passages that answer a question in plain words: BM25 over the guides' sections, offline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from dspy_live.assistant.guides import Guide, Passage, guides
from dspy_live.assistant.words import terms

K1, B = 1.2, 0.5
"""BM25's own: how soon a repeated term stops counting, and how much a long passage is held back."""

TITLE, HEADING, CODE = 3, 3, 0.3
"""How often a term counts in the page's title, in the section's heading, and in code."""

REST = 0.35
"""What a page's other passages add to its best one, together: the share of their mean of the next two."""

TOPIC = 2.5
"""What a term adds that is one of the page's own topics, for a topic that only this page has."""

TOPICS: dict[str, str] = {
    "async": "async await blocking asyncify aforward acall forward method coroutine parallel gather same"
    " many state share handler turn convert fastapi",
    "batch": "batch checkpoint resume rows inputs file crash progress bar window order",
    "execution": "execution native thread inline auto greenlet lock deadlock worker mode forward blocking synchronous",
    "streaming": "stream token listener field status message restart emit chunk partial generator event print"
    " tool notebook predictor cached adapter",
    "backpressure": "backpressure slow consumer reader buffer overflow coalesce drop_oldest adaptive bounded"
    " memory size waiting",
    "timeouts": "timeout deadline cancel silence idle disconnect swallow catch seconds give pay half",
    "retries": "retry backoff jitter rate quota 429 503 minute concurrency limit fallback fall back breaker"
    " circuit shed again fail dead overload queue provider",
    "layers": "layer order compose runtime custom write inside outside single_flight",
    "usage": "usage cost price budget export count ledger prompt completion unpriced token many alert day break",
    "caching": "cache hit miss rollout_id redis clear prune size answer statistics",
    "logging": "log structured rotate redact secret file level json prompts",
    "observability": "prometheus metrics trace opentelemetry span latency duration collector dashboard",
    "serving": "serve http sse route openai chat key auth mount deploy shutdown drain port address host"
    " endpoint health playground openapi error 422 code reload",
    "websocket": "websocket frame socket credit connection ws",
    "rust": "rust tokio crate axum serde",
    "testing": "test pytest simulate fault mock seed pace",
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


@dataclass(slots=True)
class Index:
    """An index over guides. Making it reads everything once; asking costs a few hundred additions."""

    pages: Sequence[Guide]
    _passages: list[Passage] = field(default_factory=list)
    _counts: list[Counter[str]] = field(default_factory=list)
    _lengths: list[float] = field(default_factory=list)
    _rarity: dict[str, float] = field(default_factory=dict)
    _topics: dict[str, dict[str, float]] = field(default_factory=dict)

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

        A page counts by its best passage, a little by the next two, and by the terms that are its topic.
        """
        wanted = set(terms(question))
        by_page: dict[str, list[Hit]] = {}
        for hit in self.passages(question, limit=len(self._passages)):
            by_page.setdefault(hit.passage.page, []).append(hit)
        for guide in self.pages:  # a page may be about a word that it never uses
            if guide.passages and wanted & self._topics[guide.name].keys():
                by_page.setdefault(guide.name, [Hit(guide.passages[0], 0.0, {})])
        pages = [PageHit(page, self._score(page, hits, wanted), hits) for page, hits in by_page.items()]
        pages.sort(key=lambda page: (-page.score, page.page))
        return pages[:limit]

    def _score(self, page: str, hits: Sequence[Hit], wanted: set[str]) -> float:
        return hits[0].score + REST * sum(hit.score for hit in hits[1:3]) / 2 + self._topic(page, wanted)

    def _topic(self, page: str, wanted: set[str]) -> float:
        """What the question's terms add that are the page's topic, each by how rare it is."""
        own = self._topics.get(page, {})
        return sum(own[term] * max(1.0, self._rarity.get(term, 1.0)) for term in wanted if term in own)


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
    return Index(guides())
