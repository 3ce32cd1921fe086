"""Questions in plain words find the sections that answer them, and questions about other things find none."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from dspy_live.assistant import retrieval
from dspy_live.assistant.guides import ALIASES, find_guide, guides, parse
from dspy_live.assistant.retrieval import Index, index
from dspy_live.assistant.terms import terms
from dspy_live.core.errors import NotFound

SECTIONS = Path(retrieval.__file__).with_name("aliases.toml")
QUESTIONS = Path(__file__).with_name("user_questions.toml")


def script() -> ModuleType:
    """The measuring script, as a module."""
    path = Path(__file__).parents[2] / "scripts" / "measure_retrieval.py"
    spec = importlib.util.spec_from_file_location("measure_retrieval", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_nine_in_ten_questions_have_their_section_among_the_first_two() -> None:
    shares = script().measure()
    assert shares.asked >= 80
    assert shares.section >= 0.9 * shares.asked, shares.misses
    assert shares.guide >= 0.95 * shares.asked, shares.misses
    assert shares.answered >= 0.95 * shares.asked, shares.misses


def test_questions_that_were_kept_unseen_do_as_well() -> None:
    shares = script().measure(unseen=True)
    assert shares.asked >= 24
    assert shares.section >= 0.9 * shares.asked, shares.misses
    assert shares.guide >= 0.9 * shares.asked, shares.misses


def test_nine_in_ten_foreign_questions_are_not_covered() -> None:
    asked, answered = script().refused_foreign()
    assert asked >= 30
    assert len(answered) <= 0.1 * asked, answered


def test_long_and_odd_wordings_find_their_page() -> None:
    wordings, first, two = script().pages_of_held_out()
    assert wordings >= 290
    assert first >= 0.9
    assert two >= 0.95


def test_every_section_that_has_other_words_is_in_the_guides() -> None:
    there = {guide.name: [passage.heading for passage in guide.passages] for guide in guides()}
    for page, sections in tomllib.loads(SECTIONS.read_text("utf-8")).items():
        for heading, words in sections.items():
            near = difflib.get_close_matches(heading, there.get(page, []), n=1, cutoff=0)
            assert heading in there.get(page, []), f"aliases.toml: {page} has no section {heading!r}; nearest: {near}"
            assert set(words) <= {"aliases", "asked"}
    assert set(ALIASES.values()) <= set(there)


def test_every_section_that_a_question_names_is_in_the_guides() -> None:
    there = {passage.place for guide in guides() for passage in guide.passages}
    for question in tomllib.loads(QUESTIONS.read_text("utf-8"))["question"]:
        for place in question["sections"]:
            near = difflib.get_close_matches(place, there, n=1, cutoff=0)
            assert place in there, f"user_questions.toml: there is no section {place!r}; nearest: {near}"


HOUSE = parse(
    "house",
    "# House\n\nNothing.\n\n## One\n\nThis is all.\n\n```python\nboiler = 1\n```\n\n"
    "## Two\n\nThe boiler is red.\n\n## Boiler\n\nTurn it on.\n",
)


def headings(index: Index, question: str) -> list[str]:
    return [hit.passage.heading for hit in index.search(question)]


def test_a_term_counts_most_in_the_heading_and_least_in_code() -> None:
    assert headings(Index([HOUSE]), "where is the boiler?") == ["Boiler", "Two", "One"]


def test_a_section_is_found_by_its_other_words() -> None:
    aliases = {"house": {"Two": {"aliases": "furnace, heating appliance", "asked": "warm"}}}
    assert headings(Index([HOUSE]), "heating appliance") == []
    assert headings(Index([HOUSE], aliases), "heating appliances") == ["Two"]
    assert headings(Index([HOUSE], aliases), "is it warm?") == ["Two"]


def test_forms_of_a_word_are_one() -> None:
    page = parse("x", "# X\n\nNothing.\n\n## One\n\nIt retries.\n\n## Two\n\nIt streams.\n")
    assert headings(Index([page]), "retrying a retry") == ["One"]
    assert headings(Index([page]), "streaming") == ["Two"]


def test_a_section_with_all_words_goes_before_one_that_repeats_a_few() -> None:
    page = parse("x", "# X\n\nNothing.\n\n## One\n\nPump pump pump pump.\n\n## Two\n\nThe pump of the long red pipe.\n")
    assert headings(Index([page]), "pump of a pipe")[0] == "Two"


def test_a_section_that_speaks_of_a_part_of_the_question_is_no_answer() -> None:
    (hit, *_) = index().search("which embedding fits a vector database of recipes for sourdough bread?")
    assert not hit.answers
    (hit, *_) = index().search("How do I stream only one field?")
    assert hit.answers
    assert hit.coverage == 1.0


def test_a_question_of_unknown_words_finds_nothing() -> None:
    assert index().search("zebra xylophone") == []
    assert index().search("how do I?") == []
    assert index().search('"; DROP TABLE sections; -- * NEAR(') == index().search("drop table sections near")
    assert Index([]).search("streaming") == []


def test_terms_are_words_without_filler_and_long_numbers() -> None:
    assert terms("How do I handle a 429 for drop_oldest, and 500000 rows? Handle!") == [
        "handle",
        "429",
        "drop_oldest",
        "rows",
    ]


def test_a_page_is_split_at_its_headings_and_not_in_its_code() -> None:
    guide = parse(
        "x", "# Title\n\nFirst line. Second.\n\n```python\n# not a heading\nprint(1)\n```\n\n## Next\n\nMore.\n"
    )
    assert [passage.heading for passage in guide.passages] == ["Title", "Next"]
    assert guide.summary == "First line."
    assert guide.example == "# not a heading\nprint(1)\n"
    assert guide.passages[0].prose == "First line. Second."


@pytest.mark.parametrize(
    ("topic", "page"),
    [
        ("async", "async"),
        ("Timeout", "timeouts"),
        ("cancellation", "timeouts"),
        ("front ends", "front-ends"),
        ("front-ends", "front-ends"),
        ("command_line", "command-line"),
        ("k8s", "kubernetes"),
    ],
)
def test_topics_by_other_names(topic: str, page: str) -> None:
    assert find_guide(topic).name == page


def test_an_unknown_topic_suggests_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'streaming'"):
        find_guide("streeming")
    with pytest.raises(NotFound, match="there are: assistant, async"):
        find_guide("zebra")
