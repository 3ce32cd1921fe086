"""Questions in plain words find their page: those that it knows, and a hundred of which it does not know the words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspy_live.assistant import retrieval
from dspy_live.assistant.guides import ALIASES, find_guide, guides, parse
from dspy_live.assistant.retrieval import SHARES, Index, index, read_asked
from dspy_live.assistant.words import stem, terms
from dspy_live.core.errors import NotFound

KNOWN = Path(retrieval.__file__).with_name("questions.toml")
HELD_OUT = Path(__file__).with_name("held_out.toml")


def questions(path: Path) -> list[tuple[str, str]]:
    return [(asked.wording, asked.page) for group in read_asked(path.read_text("utf-8")) for asked in group]


def found(path: Path) -> list[tuple[str, str, list[str]]]:
    return [(wording, page, [hit.page for hit in index().search(wording)]) for wording, page in questions(path)]


def share(rows: list[tuple[str, str, list[str]]], first: int) -> float:
    return sum(page in pages[:first] for _, page, pages in rows) / len(rows)


def test_a_known_question_finds_its_page_first() -> None:
    rows = found(KNOWN)
    wrong = [row for row in rows if row[2][:1] != [row[1]]]
    assert share(rows, 1) >= 0.95, wrong


def test_a_new_question_finds_its_page_first() -> None:
    rows = found(HELD_OUT)
    wrong = [row for row in rows if row[2][:1] != [row[1]]]
    assert share(rows, 1) >= 0.95, wrong
    assert share(rows, 3) >= 0.98, wrong


def test_no_question_is_held_out_that_is_known() -> None:
    known, held = ({wording.lower() for wording, _ in questions(path)} for path in (KNOWN, HELD_OUT))
    assert len(questions(HELD_OUT)) >= 295
    assert len(known) >= 5000
    assert not known & held


def test_every_page_has_questions_and_every_question_a_page() -> None:
    pages = {guide.name for guide in guides()}
    for path in (KNOWN, HELD_OUT):
        assert {page for _, page in questions(path)} == pages
    assert set(ALIASES.values()) <= pages


def test_a_hit_says_why() -> None:
    hit = index().passages("how do I limit concurrent calls?")[0]
    assert hit.score == pytest.approx(sum(hit.why.values()))
    assert set(hit.why) <= set(terms("how do I limit concurrent calls?"))


def test_an_answer_is_made_from_the_best_pages_most_of_all_from_the_first() -> None:
    question = "how do I limit concurrent calls?"
    pages = [hit.page for hit in index().search(question)]
    assert [hit.passage.page for hit in index().passages(question)] == [pages[0]] * SHARES[0] + pages[1:]


def test_a_page_without_questions_is_found_by_its_own_words() -> None:
    guide = parse("heating", "# Heating\n\nTurn the boiler on.\n\n## Radiators\n\nBleed them in autumn.\n")
    found = Index([*guides(), guide], [asked for group in read_asked(KNOWN.read_text("utf-8")) for asked in group])
    (best, *_) = found.search("how do I bleed radiators?")
    assert (best.page, best.hits[0].passage.heading) == ("heating", "Radiators")


def test_what_the_guides_do_not_know_finds_nothing() -> None:
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
    assert terms("drop_oldest")[0] == terms("drop_oldest")[0]
    assert "oldest" in " ".join(terms("drop_oldest"))


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
