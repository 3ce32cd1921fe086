"""Which section people mean by a wording: a weight for each word and each pair of neighbours, learned from questions.

A section's score is the sum of the weights that the question's parts have for it and for its page, divided by the
question's length: multinomial logistic regression, as ``scripts/learn_retrieval.py`` learns it from questions of which
the sections are known. Beside the sections there is one more class, for questions about other things.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from dspy_live.assistant.reading import LITTLE, nearest, parts

FILE = Path(__file__).with_name("wordings.bin")

ELSEWHERE = ""
"""The page, and the place, of questions about other things."""

LENGTH = 2.0
"""The length to which a question is brought, so that a long one is no surer than a short one."""

STEP = 32
"""How many steps of a part's size there are to 1."""

_FIRST = 0x100
"""The character that stands for 0 in the file's columns of numbers."""


@dataclass(frozen=True, slots=True)
class Part:
    """A word or a pair of neighbours.

    Args:
        text: the word, or both with a space between them.
        size: what it adds to a question's length, in steps.
        weights: what it counts for the pages and places that it tells something about.
    """

    text: str
    size: int
    weights: Mapping[str, int]


class Wordings:
    """What the parts of questions tell about pages (``"usage"``) and places (``"usage: Prices"``).

    Args:
        names: the pages, then the places.
        base: what each place has from the start: the more questions it had, the more.
        columns: of all parts, one after the other: the texts, with tabs between them, the sizes, how many weights each
            has, which names these are for, and the weights; each number is a character.
        learned_from: names the questions that it was learned from.
    """

    def __init__(
        self, names: Sequence[str], base: Mapping[str, float], columns: Sequence[str], learned_from: str = ""
    ) -> None:
        texts, self._sizes, many, self._which, self._weights = columns
        self._names, self._base, self._columns = names, base, columns
        self._rows = {text: row for row, text in enumerate(texts.split("\t"))}
        self._ends = [*accumulate((ord(char) - _FIRST for char in many), initial=0)]
        self.learned_from = learned_from

    @classmethod
    def of(
        cls, names: Sequence[str], base: Mapping[str, float], parts: Sequence[Part], learned_from: str = ""
    ) -> Wordings:
        """Return the wordings with these parts."""
        numbers = {name: number for number, name in enumerate(names)}
        columns = [
            "\t".join(part.text for part in parts),
            _column(part.size for part in parts),
            _column(len(part.weights) for part in parts),
            _column(numbers[name] for part in parts for name in part.weights),
            _column(weight for part in parts for weight in part.weights.values()),
        ]
        return cls(names, base, columns, learned_from)

    @classmethod
    def load(cls, data: bytes) -> Wordings:
        """Return the wordings that :meth:`dump` wrote."""
        head, *columns = zlib.decompress(data).decode().split("\n")
        return cls(columns=columns, **json.loads(head))

    def dump(self) -> bytes:
        """Return everything as bytes."""
        head = {"names": self._names, "base": self._base, "learned_from": self.learned_from}
        return zlib.compress("\n".join([json.dumps(head), *self._columns]).encode(), 9)

    def __contains__(self, stem: object) -> bool:
        return stem in self._rows or stem in LITTLE

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def knows(self, place: str) -> bool:
        """True where a question has named this place."""
        return place in self._base

    def part(self, text: str) -> Part | None:
        """Return what is known of a word or of a pair."""
        row = self._rows.get(text)
        if row is None:
            return None
        here = slice(self._ends[row], self._ends[row + 1])
        names = (self._names[ord(char) - _FIRST] for char in self._which[here])
        weights = (ord(char) - _FIRST for char in self._weights[here])
        return Part(text, ord(self._sizes[row]) - _FIRST, dict(zip(names, weights, strict=True)))

    def scores(self, stems: Sequence[str], places: Iterable[str]) -> dict[str, float] | None:
        """Return how well each of some places fits a question, as logarithms of odds; none if nothing of it is known.

        ELSEWHERE is one of the places in the result.
        """
        known = [part for part in map(self.part, parts(stems)) if part is not None]
        if not known:
            return None
        sums: dict[str, int] = {}
        for part in known:
            for name, weight in part.weights.items():
                sums[name] = sums.get(name, 0) + weight
        share = LENGTH / math.hypot(*(part.size / STEP for part in known))
        least = min(self._base.values(), default=0.0)
        return {
            place: self._base.get(place, least)
            + share * (sums.get(place, 0) + (sums.get(place.partition(": ")[0], 0) if place else 0))
            for place in [*places, ELSEWHERE]
        }

    def nearest(self, stem: str) -> str | None:
        """Return the known word that is written nearly like an unknown one; see :func:`~.reading.nearest`."""
        return nearest(stem, (part for part in self._rows if " " not in part))


def _column(numbers: Iterable[int]) -> str:
    return "".join(chr(_FIRST + number) for number in numbers)


@lru_cache(maxsize=1)
def wordings() -> Wordings:
    """Return what was learned about the installed guides."""
    return Wordings.load(FILE.read_bytes())
