"""Questions in plain words find their page: measured on questions that the index has not learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspy_live.assistant import retrieval
from dspy_live.assistant.guides import ALIASES, find_guide, guides, parse
from dspy_live.assistant.retrieval import SHARES, Index, index, read_questions
from dspy_live.assistant.terms import stem, terms
from dspy_live.core.errors import NotFound

KNOWN = Path(retrieval.__file__).with_name("questions.toml")
HELD_OUT = Path(__file__).with_name("held_out.toml")


def questions(path: Path) -> list[tuple[str, str]]:
    return [
        (question.wording, question.page) for group in read_questions(path.read_text("utf-8")) for question in group
    ]


def test_a_new_question_finds_its_page() -> None:
    rows = [(wording, page, [hit.page for hit in index().search(wording)]) for wording, page in questions(HELD_OUT)]
    not_first = [row for row in rows if row[1] not in row[2][:1]]
    missing = [row for row in rows if row[1] not in row[2]]
    assert len(not_first) <= 0.05 * len(rows), not_first
    assert len(missing) <= 0.02 * len(rows), missing


def test_no_held_out_question_is_one_that_the_index_has_learnt() -> None:
    known, held = ({wording.lower() for wording, _ in questions(path)} for path in (KNOWN, HELD_OUT))
    assert len(held) >= 290
    assert not known & held


def test_every_page_has_questions_and_every_question_a_page() -> None:
    pages = {guide.name for guide in guides()}
    for path in (KNOWN, HELD_OUT):
        assert {page for _, page in questions(path)} == pages
    assert set(ALIASES.values()) <= pages


def test_a_term_counts_most_in_the_heading_and_least_in_code() -> None:
    guide = parse(
        "x",
        "# X\n\nNothing.\n\n## One\n\nThis is all.\n\n```python\nboiler = 1\n```\n\n"
        "## Two\n\nThe boiler is red.\n\n## Boiler\n\nTurn it on.\n",
    )
    hits = Index([guide]).passages("where is the boiler?")
    assert [hit.passage.heading for hit in hits] == ["Boiler", "Two", "One"]
    assert all(set(hit.scores) == set(terms("boiler")) for hit in hits)


def test_a_rare_term_decides_between_passages() -> None:
    text = "# X\n\nNothing.\n\n## One\n\nThe pump and the valve.\n\n## Two\n\nThe pump and the pipe.\n"
    hits = Index([parse("x", text)]).passages("pump pipe")
    assert hits[0].passage.heading == "Two"


def test_an_answer_is_made_from_the_best_pages_most_of_all_from_the_first() -> None:
    question = "how do I limit concurrent calls?"
    pages = [hit.page for hit in index().search(question)]
    assert [hit.passage.page for hit in index().passages(question)] == [pages[0]] * SHARES[0] + pages[1:]


def test_a_page_without_questions_is_found_by_its_own_words() -> None:
    guide = parse("heating", "# Heating\n\nTurn the boiler on.\n\n## Radiators\n\nBleed them in autumn.\n")
    found = Index(
        [*guides(), guide], [question for group in read_questions(KNOWN.read_text("utf-8")) for question in group]
    )
    (best, *_) = found.search("how do I bleed radiators?")
    assert (best.page, best.hits[0].passage.heading) == ("heating", "Radiators")


def test_a_question_of_unknown_words_finds_nothing() -> None:
    assert index().search("zebra xylophone") == []
    assert index().search("how do I?") == []
    assert Index([]).search("streaming") == []


@pytest.mark.parametrize(
    ("words", "root"),
    [
        (("stream", "streams", "streaming", "streamed"), "stream"),
        (("retry", "retries"), "retry"),
        (("limit", "limits", "limiting"), "limit"),
    ],
)
def test_word_forms_have_one_stem(words: tuple[str, ...], root: str) -> None:
    assert {stem(word) for word in words} == {root}


def test_words_that_mean_the_same_are_one_term() -> None:
    assert terms("What does it cost?") == terms("money!")


def test_a_name_gives_its_parts_too() -> None:
    assert terms("drop_oldest") == ["drop_oldest", "drop", "oldest"]


def test_a_page_is_split_at_its_headings_and_not_in_its_code() -> None:
    guide = parse(
        "x", "# Title\n\nFirst line. Second.\n\n```python\n# not a heading\nprint(1)\n```\n\n## Next\n\nMore.\n"
    )
    assert [passage.heading for passage in guide.passages] == ["Title", "Next"]
    assert guide.summary == "First line."
    assert guide.example == "# not a heading\nprint(1)\n"
    assert guide.passages[0].prose == "First line. Second."


@pytest.mark.parametrize(("topic", "page"), [("async", "async"), ("Timeout", "timeouts"), ("cancellation", "timeouts")])
def test_topics_by_other_names(topic: str, page: str) -> None:
    assert find_guide(topic).name == page


def test_an_unknown_topic_suggests_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'streaming'"):
        find_guide("streeming")
    with pytest.raises(NotFound, match="there are: assistant, async"):
        find_guide("zebra")
