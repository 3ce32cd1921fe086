"""Measures how well questions in plain words find the sections that answer them.

``python scripts/measure_retrieval.py`` asks the questions of tests/assistant/held_out.toml, from which nothing was
learned; another file is named on the command line. Misses are printed with what was found instead, but for held-out
questions only with ``--misses``. What the search learns from stands in tests/assistant/questions: how well it does on
those that it was not told of, ``learn_retrieval.py --cross`` says. To go on: write new questions before you look
at these misses, and let those take the place of held_out.toml, whose own may then be learned from.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from dspy_live.assistant.retrieval import Index, index

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "assistant"
HELD_OUT = FOLDER / "held_out.toml"


class Question(Protocol):
    """A question with the sections that answer it; with none it is about other things."""

    @property
    def text(self) -> str:
        """What is asked."""

    @property
    def places(self) -> Sequence[str]:
        """The sections."""


@dataclass(frozen=True)
class HeldOut:
    """A question with the sections that answer it; with none it is about other things."""

    text: str
    places: Sequence[str]


@dataclass
class Shares:
    """Counts of some questions, and the misses."""

    asked: int = 0
    section: int = 0
    guide: int = 0
    answered: int = 0
    foreign: int = 0
    refused: int = 0
    misses: list[str] = field(default_factory=list)

    def __add__(self, other: Shares) -> Shares:
        """Return the counts of both."""
        return Shares(*(getattr(self, name.name) + getattr(other, name.name) for name in fields(self)))

    def __str__(self) -> str:
        """The shares, for a person."""
        text = (
            f"{self.asked} questions: right section among the first two {self.section / self.asked:.1%}, "
            f"right guide first {self.guide / self.asked:.1%}, answered {self.answered / self.asked:.1%}"
        )
        return f"{text}; {self.refused} of {self.foreign} foreign ones not covered" if self.foreign else text


def load(file: Path) -> list[HeldOut]:
    """Return the questions of a file: ``[questions]``, each with its sections, and ``foreign`` ones, with none."""
    asked = tomllib.loads(file.read_text("utf-8"))
    found = [HeldOut(text, places) for text, places in asked["questions"].items()]
    return found + [HeldOut(text, ()) for text in asked.get("foreign", [])]


def measure(asked: Sequence[Question], among: Index | None = None) -> Shares:
    """Ask some questions.

    Args:
        asked: the questions.
        among: where to search; by default in the installed guides, with all that was learned.
    """
    shares, among = Shares(), among or index()
    for one in asked:
        hits = among.search(one.text)
        answered = bool(hits) and hits[0].answers
        found = "; ".join(hit.passage.place for hit in hits[:2])
        if not one.places:
            shares.foreign += 1
            shares.refused += not answered
            if answered:
                shares.misses.append(f"{one.text}  ->  {found}  (foreign)")
            continue
        section = any(hit.passage.place in one.places for hit in hits[:2])
        guide = bool(hits) and hits[0].passage.page in {place.partition(": ")[0] for place in one.places}
        shares.asked += 1
        shares.section += section
        shares.guide += guide
        shares.answered += answered
        if not (section and guide and answered):
            said = f"{found or 'nothing'}{'' if answered else '  (not answered)'}"
            shares.misses.append(f"{one.text}  ->  {said}  not  {'; '.join(one.places)}")
    return shares


def main() -> None:
    """Print the misses and the shares."""
    named = [Path(argument) for argument in sys.argv[1:] if argument != "--misses"]
    for file in named or [HELD_OUT]:
        shares = measure(load(file))
        if file != HELD_OUT or "--misses" in sys.argv:
            print(*shares.misses, sep="\n")
        print(f"{file.name}: {shares}\n")


if __name__ == "__main__":
    main()
