"""Measures how well questions in plain words find the sections that answer them.

``python scripts/measure_retrieval.py`` asks the questions of tests/assistant/user_questions.toml, and those of
held_out.toml beside it, which know only their page. Misses are printed with what was found instead.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from dspy_live.assistant.retrieval import index

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "assistant"


@dataclass
class Shares:
    """Counts of some questions, and the misses."""

    asked: int = 0
    section: int = 0
    guide: int = 0
    answered: int = 0
    misses: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The shares, for a person."""
        return (
            f"{self.asked} questions: right section among the first two {self.section / self.asked:.1%}, "
            f"right guide first {self.guide / self.asked:.1%}, answered {self.answered / self.asked:.1%}"
        )


def measure(*, unseen: bool | None = None, file: Path = FOLDER / "user_questions.toml") -> Shares:
    """Ask the questions of a file; ``unseen`` keeps those that are, or are not, held out."""
    shares = Shares()
    for question in tomllib.loads(file.read_text("utf-8"))["question"]:
        if unseen is not None and question.get("unseen", False) != unseen:
            continue
        hits = index().search(question["ask"])
        wanted = question["sections"]
        section = any(hit.passage.place in wanted for hit in hits[:2])
        guide = bool(hits) and hits[0].passage.page in {place.partition(": ")[0] for place in wanted}
        answered = bool(hits) and hits[0].answers
        shares.asked += 1
        shares.section += section
        shares.guide += guide
        shares.answered += answered
        if not (section and guide and answered):
            found = "; ".join(hit.passage.place for hit in hits[:2])
            shares.misses.append(f"{question['ask']}  ->  {found or 'nothing'}{'' if answered else '  (not answered)'}")
    return shares


def refused_foreign(file: Path = FOLDER / "user_questions.toml") -> tuple[int, list[str]]:
    """Return how many foreign questions there are, and those that got an answer."""
    foreign = [question["ask"] for question in tomllib.loads(file.read_text("utf-8"))["foreign"]]
    return len(foreign), [ask for ask in foreign if (hits := index().search(ask)) and hits[0].answers]


def pages_of_held_out(file: Path = FOLDER / "held_out.toml") -> tuple[int, float, float]:
    """Return how many wordings there are, and the shares of those with the right page first, and of the first two."""
    asked = [
        (wording, question["page"])
        for question in tomllib.loads(file.read_text("utf-8"))["question"]
        for wording in question["wordings"]
    ]
    found = [(list(dict.fromkeys(hit.passage.page for hit in index().search(ask))), page) for ask, page in asked]
    first = sum(pages[:1] == [page] for pages, page in found)
    two = sum(page in pages[:2] for pages, page in found)
    return len(asked), first / len(asked), two / len(asked)


def main() -> None:
    """Print the misses and the shares."""
    for name, unseen in (("seen", False), ("unseen", True)):
        shares = measure(unseen=unseen)
        print(*shares.misses, sep="\n")
        print(f"{name}: {shares}\n")
    asked, answered = refused_foreign()
    print(f"foreign: {asked - len(answered)} of {asked} not covered; answered: {'; '.join(answered) or 'none'}")
    wordings, first, two = pages_of_held_out()
    print(f"held out: {wordings} wordings, right page first {first:.1%}, of the first two {two:.1%}")


if __name__ == "__main__":
    main()
