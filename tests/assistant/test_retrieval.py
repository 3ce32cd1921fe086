"""A hundred questions in three wordings each find their page: eighty while it was written, twenty that it never saw."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dspy_live.assistant.guides import ALIASES, find_guide, guides, parse
from dspy_live.assistant.retrieval import TOPICS, Index, index
from dspy_live.assistant.words import stem, terms
from dspy_live.core.errors import NotFound

SHARE = 0.95


def questions(name: str) -> list[tuple[str, str]]:
    rows = tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))["question"]
    return [(wording, row["page"]) for row in rows for wording in row["wordings"]]


@pytest.mark.parametrize("name", ["questions.toml", "held_out.toml"])
def test_the_right_page_comes_first(name: str) -> None:
    asked = questions(name)
    found = [(wording, page, [hit.page for hit in index().search(wording)]) for wording, page in asked]
    wrong = [f"{wording} -> {pages}, not {page}" for wording, page, pages in found if pages[:1] != [page]]
    share = 1 - len(wrong) / len(asked)
    assert share >= SHARE, f"{share:.1%}\n" + "\n".join(wrong)


def test_there_are_a_hundred_questions_and_none_twice() -> None:
    known, held = questions("questions.toml"), questions("held_out.toml")
    assert (len(known), len(held)) == (240, 60)
    assert len({wording.lower() for wording, _ in known + held}) == 300


def test_every_page_of_the_questions_and_topics_exists() -> None:
    pages = {guide.name for guide in guides()}
    asked = {page for name in ("questions.toml", "held_out.toml") for _, page in questions(name)}
    assert asked <= pages
    assert set(TOPICS) == pages
    assert set(ALIASES.values()) <= pages


def test_a_hit_says_why() -> None:
    hit = index().passages("how do I limit concurrent calls?")[0]
    assert hit.score == pytest.approx(sum(hit.why.values()))
    assert set(hit.why) <= set(terms("how do I limit concurrent calls?"))


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
    with pytest.raises(NotFound, match="there are: async"):
        find_guide("zebra")
