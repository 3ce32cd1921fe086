"""Finds the sections of the guides that answer a question in plain words, offline.

SQLite's FTS5 ranks them by BM25 over a page's title, a section's heading, other phrases for it and the words by which
people ask for it (both in ``aliases.toml``), its prose and its code; the Porter stemmer makes one word of "retries" and
"retrying".
"""

from __future__ import annotations

import math
import sqlite3
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dspy_live.assistant.guides import Guide, Passage, guides
from dspy_live.assistant.terms import terms
from dspy_live.core.errors import ConfigurationError

Aliases = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Other words for sections, by page, then by heading: ``aliases``, phrases; ``asked``, words of questions."""

WEIGHTS = {"page": 2.0, "heading": 3.0, "aliases": 6.0, "asked": 2.0, "prose": 1.0, "code": 0.1}
"""How much a term counts in each column."""

IN_PROSE = 0.5
"""The part of a term that a section covers by its prose alone, where heading and aliases don't have it."""

COVERED = 4.0
"""The least confidence of an answer. Most questions about other things reach 3 at most, real ones 5 to 40."""

NEARLY_ALL = 0.8
"""The coverage from which a section answers whatever its score: words as common as "stream" score next to nothing."""

CANDIDATES = 25
"""The sections of the highest BM25 that confidence then ranks."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A section that was found.

    Args:
        passage: the section.
        score: BM25, the higher the better.
        coverage: the part of the question that the section speaks of, 0 to 1, rare words counting more.
    """

    passage: Passage
    score: float
    coverage: float

    @property
    def confidence(self) -> float:
        """Score times coverage: a section that has all words of a question goes before one that repeats a few."""
        return self.score * self.coverage

    @property
    def answers(self) -> bool:
        """True where the section speaks of enough of the question to be its answer."""
        return self.confidence >= COVERED or self.coverage >= NEARLY_ALL


class Index:
    """The sections of some pages.

    Args:
        pages: the pages.
        aliases: other words for their sections.

    Raises :class:`ConfigurationError` where Python's SQLite was built without FTS5.
    """

    def __init__(self, pages: Sequence[Guide], aliases: Aliases | None = None) -> None:
        self._passages = [passage for page in pages for passage in page.passages]
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        columns = ", ".join(WEIGHTS)
        try:
            self._db.execute(f"CREATE VIRTUAL TABLE sections USING fts5({columns}, tokenize='porter unicode61')")
        except sqlite3.OperationalError as error:
            raise ConfigurationError(f"the guides can't be searched: Python's SQLite has no FTS5 ({error})") from error
        rows = [_row(page, passage, aliases or {}) for page in pages for passage in page.passages]
        self._db.executemany("INSERT INTO sections VALUES (?, ?, ?, ?, ?, ?)", rows)

    def search(self, question: str, limit: int = 5) -> list[Hit]:
        """Return the sections that fit best, best first; none for a question of fillers and unknown words."""
        wanted = terms(question)
        if not wanted:
            return []
        order = f"bm25(sections, {', '.join(map(str, WEIGHTS.values()))})"
        query = f"SELECT rowid - 1, -{order} FROM sections WHERE sections MATCH ? ORDER BY {order} LIMIT ?"
        found = self._db.execute(query, (" OR ".join(map(_quoted, wanted)), CANDIDATES)).fetchall()
        coverage = self._coverage(wanted)
        hits = [Hit(self._passages[row], score, coverage.get(row, 0.0)) for row, score in found]
        return sorted(hits, key=lambda hit: -hit.confidence)[:limit]

    def _coverage(self, wanted: Sequence[str]) -> dict[int, float]:
        """Return the part of the wanted terms that each section has, a rare term counting more than a common one."""
        parts: dict[int, float] = {}
        whole = 0.0
        for term in wanted:
            named = self._with(f"{{page heading aliases asked}} : {_quoted(term)}")
            mentioned = self._with(f"prose : {_quoted(term)}") - named
            rarity = math.log(1 + (len(self._passages) + 0.5) / (len(named | mentioned) + 0.5))
            whole += rarity
            for rows, share in ((named, 1.0), (mentioned, IN_PROSE)):
                for row in rows:
                    parts[row] = parts.get(row, 0.0) + share * rarity
        return {row: part / whole for row, part in parts.items()}

    def _with(self, match: str) -> set[int]:
        return {row for (row,) in self._db.execute("SELECT rowid - 1 FROM sections WHERE sections MATCH ?", (match,))}


def _quoted(term: str) -> str:
    return f'"{term}"'


def _row(page: Guide, passage: Passage, aliases: Aliases) -> tuple[str, ...]:
    words = aliases.get(page.name, {}).get(passage.heading, {})
    named = (f"{page.name} {page.title}", passage.heading, words.get("aliases", ""), words.get("asked", ""))
    return (*named, passage.prose, "\n".join(passage.code))


@lru_cache(maxsize=1)
def index() -> Index:
    """Return the index over the installed guides."""
    text = Path(__file__).with_name("aliases.toml").read_text("utf-8")
    return Index(guides(), tomllib.loads(text))
