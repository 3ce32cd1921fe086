"""Measures how well questions in plain words find the sections that answer them.

``python scripts/measure_retrieval.py`` asks the questions of tests/assistant/user_questions.toml, which the search has
learned from, and those of held_out.toml beside it, which it has not: they alone tell how well it does. Another file
is named on the command line. Misses are printed with what was found instead, but for held-out questions only with
``--misses``. To go on tuning: write new questions before you look at these misses, and let those take the place of
held_out.toml, whose own may then be learned from.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from dspy_live.assistant.retrieval import index

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "assistant"
DEVELOPED = FOLDER / "user_questions.toml"
HELD_OUT = FOLDER / "held_out.toml"


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

    def __str__(self) -> str:
        """The shares, for a person."""
        text = (
            f"{self.asked} questions: right section among the first two {self.section / self.asked:.1%}, "
            f"right guide first {self.guide / self.asked:.1%}, answered {self.answered / self.asked:.1%}"
        )
        return f"{text}; {self.refused} of {self.foreign} foreign ones not covered" if self.foreign else text


def measure(file: Path = DEVELOPED, every: int = 1) -> Shares:
    """Ask the questions of a file: ``[questions]``, each with its sections, and ``foreign`` ones, which have none.

    Args:
        file: the questions, in TOML.
        every: which of them: all, or with 3 every third.
    """
    asked = tomllib.loads(file.read_text("utf-8"))
    shares = Shares()
    for question, wanted in list(asked["questions"].items())[::every]:
        hits = index().search(question)
        section = any(hit.passage.place in wanted for hit in hits[:2])
        guide = bool(hits) and hits[0].passage.page in {place.partition(": ")[0] for place in wanted}
        answered = bool(hits) and hits[0].answers
        shares.asked += 1
        shares.section += section
        shares.guide += guide
        shares.answered += answered
        if not (section and guide and answered):
            found = "; ".join(hit.passage.place for hit in hits[:2])
            shares.misses.append(f"{question}  ->  {found or 'nothing'}{'' if answered else '  (not answered)'}")
    for question in asked.get("foreign", [])[::every]:
        hits = index().search(question)
        refused = not hits or not hits[0].answers
        shares.foreign += 1
        shares.refused += refused
        if not refused:
            shares.misses.append(f"{question}  ->  {hits[0].passage.place}  (foreign)")
    return shares


def main() -> None:
    """Print the misses and the shares."""
    named = [Path(argument) for argument in sys.argv[1:] if argument != "--misses"]
    for file in named or [DEVELOPED, HELD_OUT]:
        shares = measure(file)
        if file != HELD_OUT or "--misses" in sys.argv:
            print(*shares.misses, sep="\n")
        print(f"{file.name}: {shares}\n")


if __name__ == "__main__":
    main()
