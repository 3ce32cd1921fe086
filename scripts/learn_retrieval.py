"""Learns from questions which sections of the guides people mean by which words, and writes the table of the search.

``python scripts/learn_retrieval.py`` reads tests/assistant/questions and writes src/dspy_live/assistant/wordings.bin.
``--cross`` writes nothing: for each file of questions, it learns from all others and measures with this one, which
tells how well questions of another hand will do.

It is multinomial logistic regression over words and pairs of neighbours (Bishop: "Pattern Recognition and Machine
Learning", 2006, section 4.3.4), by stochastic gradient descent with a step for each weight (Duchi, Hazan, Singer:
"Adaptive Subgradient Methods", 2011), with parts left out at random so that the others learn to do without them. Each
part has a weight for every section and one for every page, which the sections share. Then weights that hardly matter
are dropped, and the others rounded.
"""

from __future__ import annotations

import hashlib
import math
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dspy_live.assistant import reading
from dspy_live.assistant.guides import guides
from dspy_live.assistant.retrieval import Index
from dspy_live.assistant.terms import vocabulary
from dspy_live.assistant.wordings import ELSEWHERE, FILE, LENGTH, STEP, Part, Wordings

QUESTIONS = Path(__file__).resolve().parents[1] / "tests" / "assistant" / "questions"

PHRASES = "phrases"
"""The file of catchwords: they count less than questions, and none is measured with them."""

RELATED = ("earlier", "everyday", "newcomers")
"""Files whose questions have much in common with the others: only learned from."""

AFTERWARDS = "afterwards"
"""The file of questions that were written when the misses of the others were known: not learned from to measure."""

OF_PHRASE = 0.4
OF_FOREIGN = 2.0
OF_FIRST = 0.6
"""What a phrase counts, a foreign question, and the best section of a question that has several."""

OF_PAIR = 0.6
"""What a pair of neighbours counts beside a word of the same rarity."""

ROUNDS, PACE, LEFT_OUT = 5, 0.3, 0.3
"""How often each question is learned from, how fast, and the share of its parts that is left out each time."""

ORDERS = 4
"""In so many orders the questions are learned from; the weights are averaged, so that little depends on the order."""

LEAST_OF_PAGE, LEAST_OF_PLACE = 3.0, 4.0
"""The least weights that are kept."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """A question.

    Args:
        text: its text.
        places: the sections that answer it, best first; none for one about other things.
        weight: what it counts.
    """

    text: str
    places: tuple[str, ...]
    weight: float


def load(file: Path) -> list[Asked]:
    """Return the questions of a file: ``[sections]``, a question a line under their places, and ``foreign`` ones."""
    data = tomllib.loads(file.read_text("utf-8"))
    if others := data.keys() - {"sections", "foreign"}:
        raise SystemExit(f"{file}: {', '.join(sorted(others))} would not be read; it has [sections] and foreign")
    weight = OF_PHRASE if file.stem == PHRASES else 1.0
    asked = [
        Asked(line, tuple(places.split(" | ")), weight)
        for places, lines in data.get("sections", {}).items()
        for line in lines.strip().splitlines()
    ]
    return asked + [Asked(line, (), OF_FOREIGN) for line in data.get("foreign", "").strip().splitlines()]


class Learner:
    """The weights while they are learned.

    Args:
        pages: the page of each place; places of one page stand together, and first of all is ELSEWHERE.
        plain: of each word and pair, whether it consists of fillers.
    """

    def __init__(self, pages: Sequence[str], plain: Sequence[bool]) -> None:
        parts = len(plain)
        self._plain = np.array(plain)
        names = list(dict.fromkeys(pages))
        self._starts = np.array([pages.index(name) for name in names])
        self._page = np.array([names.index(name) for name in pages])
        self.base = np.zeros(len(pages), np.float32)
        self._places = np.zeros((parts, len(pages)), np.float32)
        self._pages = np.zeros((parts, len(names)), np.float32)
        self._past_base = np.ones(len(pages), np.float32)
        self._past_places = np.full_like(self._places, 0.01)
        self._past_pages = np.full_like(self._pages, 0.01)

    def learn(self, parts: npt.NDArray[np.int64], sizes: Floats, wanted: Floats, weight: float) -> None:
        """Make one question likelier to be answered by its places.

        Parts such as "how do" tell nothing about whether the guides cover a question.
        """
        size = sizes[:, None]
        odds = self.base + (size * (self._places[parts] + self._pages[parts][:, self._page])).sum(0)
        likely = np.exp(odds - odds.max())
        wrong = weight * (likely / likely.sum() - wanted)
        if wanted[0]:
            told = ~self._plain[parts]
            parts, size = parts[told], size[told]
        by_place, by_page = size * wrong, size * np.add.reduceat(wrong, self._starts)
        by_place[self._plain[parts], 0] = by_page[self._plain[parts], 0] = 0
        _step(self._places, self._past_places, parts, by_place)
        _step(self._pages, self._past_pages, parts, by_page)
        self._past_base += wrong * wrong
        self.base -= 0.1 * PACE * wrong / np.sqrt(self._past_base)

    def average(self, others: Sequence[Learner]) -> None:
        """Take the averages of these weights and of others' for the weights."""
        for other in others:
            for mine, its in zip(self._all(), other._all(), strict=True):
                mine += its
        for mine in self._all():
            mine /= 1 + len(others)

    def _all(self) -> tuple[Floats, Floats, Floats]:
        return self._places, self._pages, self.base

    def weights(self, sizes: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return what each part counts for each page and each place, rounded, 0 where it hardly matters."""
        whole = self._places + self._pages[:, self._page]
        whole = (whole - np.median(whole, 1, keepdims=True)) * sizes[:, None]
        ends = [*self._starts[1:], whole.shape[1]]
        shared = [np.median(whole[:, start:end], 1) for start, end in zip(self._starts, ends, strict=True)]
        pages = np.round(np.stack(shared, 1))
        pages[abs(pages) <= LEAST_OF_PAGE] = 0
        places = np.round(whole - pages[:, self._page])
        places[abs(places) <= LEAST_OF_PLACE] = 0
        return pages.clip(-60, 120).astype(np.int64), places.clip(-60, 120).astype(np.int64)


def _step(weights: Floats, past: Floats, rows: npt.NDArray[np.int64], slope: Floats) -> None:
    so_far = past[rows] + slope * slope
    past[rows] = so_far
    weights[rows] -= PACE * slope / np.sqrt(so_far)


def learn(asked: Sequence[Asked]) -> Wordings:
    """Return what some questions tell."""
    places = sorted({ELSEWHERE, *(place for one in asked for place in one.places)})
    pages = [place.partition(": ")[0] for place in places]
    texts = [reading.parts(found) for found in reading.read([one.text for one in asked])]
    count = Counter(part for text in texts for part in text)
    kept = {part: row for row, part in enumerate(part for part in count if count[part] > 1 or " " not in part)}
    rarity = [math.log(1 + len(texts) / count[part]) * (OF_PAIR if " " in part else 1.0) for part in kept]
    sizes = np.array(rarity, np.float32)
    rows = [np.array([kept[part] for part in text if part in kept], np.int64) for text in texts]
    wanted = [_wanted(one, places) for one in asked]
    filler = vocabulary().filler | reading.LITTLE
    plain = [filler.issuperset(part.split()) for part in kept]
    learner, *others = (
        _in_one_order(Learner(pages, plain), np.random.default_rng(number), asked, rows, sizes, wanted)
        for number in range(ORDERS)
    )
    learner.average(others)
    return _wordings(learner, pages, places, list(kept), sizes, digest(asked))


def _in_one_order(
    learner: Learner,
    chance: np.random.Generator,
    asked: Sequence[Asked],
    rows: Sequence[npt.NDArray[np.int64]],
    sizes: Floats,
    wanted: Sequence[Floats],
) -> Learner:
    for _ in range(ROUNDS):
        for at in chance.permutation(len(asked)):
            found = rows[at]
            length = LENGTH / max(float(np.linalg.norm(sizes[found])), 1e-9)
            if len(found) > 2:
                found = found[chance.random(len(found)) > LEFT_OUT]
            if len(found):
                learner.learn(found, sizes[found] * np.float32(length), wanted[at], asked[at].weight)
    return learner


def digest(asked: Sequence[Asked]) -> str:
    """Return a short name of what is learned from, and of how: of the questions and of this script."""
    questions = repr([(one.text, one.places, one.weight) for one in asked])
    return hashlib.sha256((questions + Path(__file__).read_text("utf-8")).encode()).hexdigest()[:16]


def _wanted(one: Asked, places: Sequence[str]) -> Floats:
    first, *others = (places.index(place) for place in dict.fromkeys(one.places or (ELSEWHERE,)))
    wanted = np.zeros(len(places), np.float32)
    wanted[others] = (1 - OF_FIRST) / max(1, len(others))
    wanted[first] = OF_FIRST if others else 1.0
    return wanted


def _wordings(
    learner: Learner, pages: Sequence[str], places: Sequence[str], parts: Sequence[str], sizes: Floats, source: str
) -> Wordings:
    names = list(dict.fromkeys([*pages, *places]))
    by_page, by_place = learner.weights(sizes)
    kept = []
    for row in sorted(range(len(parts)), key=lambda at: parts[at]):
        weights = _told(by_page[row], list(dict.fromkeys(pages))) | _told(by_place[row], places)
        if weights or " " not in parts[row]:
            kept.append(Part(parts[row], round(float(sizes[row]) * STEP), weights))
    base = {place: round(float(value), 2) for place, value in zip(places, learner.base, strict=True)}
    return Wordings.of(names, base, kept, source)


def _told(weights: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, int]:
    return {names[at]: int(weights[at]) for at in np.flatnonzero(weights)}


def files() -> list[Path]:
    """Return the files of questions."""
    return sorted(QUESTIONS.glob("*.toml"))


def cross() -> None:
    """Measure with each file what was learned from all others."""
    from measure_retrieval import Shares, measure

    found = {file: load(file) for file in files()}
    total = Shares()
    for file, asked in found.items():
        if file.stem in (PHRASES, AFTERWARDS, *RELATED):
            continue
        others = [one for other in found if other not in (file, file.with_stem(AFTERWARDS)) for one in found[other]]
        shares = measure(asked, Index(guides(), learn(others)))
        if "--misses" in sys.argv:
            print(*shares.misses, sep="\n")
        print(f"{file.stem}: {shares}", flush=True)
        total += shares
    print(f"all: {total}")


def main() -> None:
    """Learn from all questions and write the table."""
    if "--cross" in sys.argv:
        cross()
        return
    asked = [one for file in files() for one in load(file)]
    data = learn(asked).dump()
    FILE.write_bytes(data)
    print(f"{FILE.name}: {len(data):,} bytes, learned from {len(asked):,} questions and phrases")


if __name__ == "__main__":
    main()
