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
from dspy_live.assistant.retrieval import Asked, Index, index, read_asked


def of_file(path: Path) -> Iterator[tuple[Asked, list[str]]]:
    """Ask what is in a file."""
    for asked in (asked for group in read_asked(path.read_text("utf-8")) for asked in group):
        yield asked, [hit.page for hit in index().search(asked.wording)]


def left_out() -> Iterator[tuple[Asked, list[str]]]:
    """Ask what the index knows, without the questions that are asked."""
    groups = read_asked(Path(retrieval.__file__).with_name("questions.toml").read_text("utf-8"))
    for part in range(20):
        rest = Index(guides(), [asked for i, group in enumerate(groups) if i % 20 != part for asked in group])
        for asked in (asked for group in groups[part::20] for asked in group):
            yield asked, [hit.page for hit in rest.search(asked.wording)]


def main() -> None:
    """Print the misses and both shares."""
    rows = list(of_file(Path(sys.argv[1])) if len(sys.argv) > 1 else left_out())
    for asked, pages in rows:
        if asked.page not in pages[:1]:
            print(f"{asked.page:14} {asked.wording}  ->  {', '.join(pages) or 'nothing'}")
    first = sum(asked.page in pages[:1] for asked, pages in rows)
    three = sum(asked.page in pages[:3] for asked, pages in rows)
    print(
        f"{len(rows)} wordings: right page first {first / len(rows):.1%}, among the first three {three / len(rows):.1%}"
    )


if __name__ == "__main__":
    main()
