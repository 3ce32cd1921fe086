"""Measures how well questions find their page: a TOML file of ``[[question]]`` with ``page`` and ``wordings``.

``python scripts/measure_retrieval.py FILE`` asks every wording of the file. Without a file it asks the
index's own questions, a twentieth of them at a time, with all their wordings left out of the index.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from dspy_live.assistant import retrieval
from dspy_live.assistant.guides import guides
from dspy_live.assistant.retrieval import Index, Question, index, read_questions


def of_file(path: Path) -> Iterator[tuple[Question, list[str]]]:
    """Ask the questions of a file."""
    for question in (question for group in read_questions(path.read_text("utf-8")) for question in group):
        yield question, [hit.page for hit in index().search(question.wording)]


def left_out() -> Iterator[tuple[Question, list[str]]]:
    """Ask the index's own questions, each of an index that was made without it."""
    groups = read_questions(Path(retrieval.__file__).with_name("questions.toml").read_text("utf-8"))
    for part in range(20):
        rest = Index(guides(), [question for i, group in enumerate(groups) if i % 20 != part for question in group])
        for question in (question for group in groups[part::20] for question in group):
            yield question, [hit.page for hit in rest.search(question.wording)]


def main() -> None:
    """Print the misses and both shares."""
    rows = list(of_file(Path(sys.argv[1])) if len(sys.argv) > 1 else left_out())
    for question, pages in rows:
        if question.page not in pages[:1]:
            print(f"{question.page:14} {question.wording}  ->  {', '.join(pages) or 'nothing'}")
    first = sum(question.page in pages[:1] for question, pages in rows)
    three = sum(question.page in pages[:3] for question, pages in rows)
    print(
        f"{len(rows)} wordings: right page first {first / len(rows):.1%}, among the first three {three / len(rows):.1%}"
    )


if __name__ == "__main__":
    main()
