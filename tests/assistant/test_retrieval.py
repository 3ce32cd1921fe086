"""Questions in plain words find the sections that answer them, and questions about other things find none."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dspy_live.assistant.guides import ALIASES, Guide, find_guide, guides, parse
from dspy_live.assistant.reading import read
from dspy_live.assistant.retrieval import Index, index
from dspy_live.assistant.terms import Vocabulary, terms
from dspy_live.assistant.wordings import FILE, Part, Wordings
from dspy_live.core.errors import NotFound

ROOT = Path(__file__).parents[2]
HELD_OUT = Path(__file__).with_name("held_out.toml")


def script(name: str) -> ModuleType:
    """One of the search's scripts, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def learning() -> ModuleType:
    return script("learn_retrieval")


@pytest.fixture(scope="module")
def asked(learning: ModuleType) -> list[Any]:
    return [one for file in learning.files() for one in learning.load(file)]


def test_the_questions_that_the_search_has_learned_from_find_their_sections(asked: list[Any]) -> None:
    shares = script("measure_retrieval").measure([one for one in asked if one.weight >= 1][::20])
    assert shares.asked >= 300
    assert shares.section >= 0.96 * shares.asked, shares.misses
    assert shares.guide >= 0.96 * shares.asked, shares.misses
    assert shares.answered >= 0.95 * shares.asked, shares.misses
    assert shares.foreign >= 30
    assert shares.refused >= 0.9 * shares.foreign, shares.misses


def test_questions_that_nothing_was_learned_from_find_their_sections() -> None:
    measuring = script("measure_retrieval")
    shares = measuring.measure(measuring.load(HELD_OUT))
    assert shares.asked >= 250
    assert shares.section >= 0.89 * shares.asked
    assert shares.guide >= 0.89 * shares.asked
    assert shares.answered >= 0.89 * shares.asked
    assert shares.foreign >= 65
    assert shares.refused >= 0.85 * shares.foreign


def test_the_table_of_the_search_is_what_the_script_learned_from_the_questions(
    learning: ModuleType, asked: list[Any]
) -> None:
    learned_from = Wordings.load(FILE.read_bytes()).learned_from
    assert learned_from == learning.digest(asked), "write it anew: python scripts/learn_retrieval.py"


def test_what_is_learned_finds_a_question_that_is_worded_a_little_otherwise(
    learning: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for least in ("LEAST_OF_PAGE", "LEAST_OF_PLACE"):
        monkeypatch.setattr(learning, least, 0.0)  # of so few questions all weights are small
    told = {"house: One": "water runs cold\nno warm water", "garden: Trees": "the lamp is red\na red lamp"}
    asked = [learning.Asked(text, (place,), 1.0) for place, texts in told.items() for text in texts.splitlines()]
    learned = learning.learn([*asked, learning.Asked("bake bread", (), 1.0)])
    places = list(told)
    for text, place in (("warm water", "house: One"), ("red lamps", "garden: Trees"), ("bread", "")):
        scores = learned.scores(read([text])[0], places)
        assert max(scores, key=scores.__getitem__) == place


def test_a_question_that_measures_is_none_that_was_learned_from(asked: list[Any]) -> None:
    learned = {" ".join(terms(one.text)) for one in asked}
    held_out = tomllib.loads(HELD_OUT.read_text("utf-8"))["questions"]
    known = [question for question in held_out if len(terms(question)) > 2 and " ".join(terms(question)) in learned]
    assert not known


def there() -> dict[str, list[str]]:
    return {guide.name: [passage.heading for passage in guide.passages] for guide in guides()}


def test_every_section_that_a_question_names_is_in_the_guides(asked: list[Any]) -> None:
    pages = there()
    places = {f"{page}: {heading}" for page, headings in pages.items() for heading in headings}
    held_out = tomllib.loads(HELD_OUT.read_text("utf-8"))["questions"].values()
    gone = {place for wanted in [*held_out, *(one.places for one in asked)] for place in wanted} - places
    assert not gone, {place: difflib.get_close_matches(place, places, n=1, cutoff=0) for place in gone}
    assert set(ALIASES.values()) <= set(pages)


HOUSE = parse(
    "house",
    "# House\n\nNothing.\n\n## One\n\nThis is all.\n\n```python\nboiler = 1\n```\n\n"
    "## Two\n\nThe boiler is red.\n\n## Boiler\n\nTurn it on.\n",
)
GARDEN = parse("garden", "# Garden\n\nNothing.\n\n## Trees\n\nThe oak is old.\n\n## Water\n\nA tap.\n")


def small(*pages: Guide, words: Vocabulary | None = None, learned: Wordings | None = None) -> Index:
    return Index([*pages, GARDEN], learned, words or Vocabulary(filler=frozenset({"where", "is", "the", "of", "a"})))


def headings(index: Index, question: str) -> list[str]:
    return [hit.passage.heading for hit in index.search(question)]


def test_a_word_counts_most_in_the_heading_and_least_in_code() -> None:
    assert headings(small(HOUSE), "where is the boiler?") == ["Boiler", "Two", "One"]


def table(**weights: dict[str, int]) -> Wordings:
    """What some words, or pairs with an underscore between, count for pages and places."""
    names = ["", "house", "house: One", "house: Two", "house: Boiler", "garden", "garden: Trees", "garden: Water"]
    parts = [Part(text.replace("_", " "), 32, counts) for text, counts in weights.items()]
    return Wordings.of(names, {name: 0.0 for name in names if ": " in name or not name}, parts)


def test_a_section_is_found_by_a_word_that_only_people_use_for_it() -> None:
    assert headings(small(HOUSE), "furnaces") == []
    learned = table(furnac={"house: Two": 9})
    assert headings(small(HOUSE, learned=learned), "furnaces")[0] == "Two"


def test_a_word_tells_of_a_page_and_of_its_sections() -> None:
    learned = table(warm={"house": 5}, red={"house: Boiler": 3, "garden: Trees": 4})
    assert headings(small(HOUSE, learned=learned), "red")[0] == "Trees"
    assert headings(small(HOUSE, learned=learned), "warm and red")[0] == "Boiler"


def test_a_pair_of_neighbours_tells_what_its_words_do_not() -> None:
    learned = table(switch={"house": 1}, off={"house": 1}, lamp={"garden: Water": 2}, lamp_off={"garden: Trees": 9})
    assert headings(small(HOUSE, learned=learned), "switch the lamp off")[0] == "Trees"
    assert headings(small(HOUSE, learned=learned), "off with the lamp")[0] == "Water"


def test_a_question_that_is_likely_about_other_things_is_not_answered() -> None:
    learned = table(warm={"house": 5}, tomato={"": 9})
    assert small(HOUSE, learned=learned).search("warm")[0].answers
    assert not small(HOUSE, learned=learned).search("warm tomatoes")[0].answers


def test_a_table_that_was_written_is_read_as_it_was() -> None:
    learned = Wordings.load(table(warm={"house": -60, "garden: Trees": 120}).dump())
    assert learned.part("warm") == Part("warm", 32, {"house": -60, "garden: Trees": 120})
    assert learned.part("cold") is None


def test_a_word_stands_for_those_that_people_use_for_it() -> None:
    words = Vocabulary(same={"furnac": frozenset({"boiler"})})
    assert headings(small(HOUSE), "furnace") == []
    assert headings(small(HOUSE, words=words), "furnace") == ["Boiler", "Two", "One"]


@pytest.mark.parametrize("name", ["nginx", "haproxy", "docker", "kubernetes", "systemd"])
def test_the_page_about_a_thing_that_the_question_names_comes_first(name: str) -> None:
    assert index().search(f"restart behind {name}")[0].passage.page == name


def test_the_name_of_a_page_alone_asks_for_its_opening() -> None:
    openings = {"batch": "Batches", "streaming": "Streaming", "docker": "With Docker", "rust": "Rust"}
    for name, opening in openings.items():
        assert index().search(f"how do I use {name}?")[0].passage.place == f"{name}: {opening}"


@pytest.mark.parametrize(
    "question",
    [
        "How do I fine-tune a model on my own data?",
        "which LoRA rank should I use for training",
        "how do I write unit tests in Java",
        "unit tests in another language",
        "write a handler in Go",
        "async await deadlock in C#",
    ],
)
def test_what_belongs_to_another_field_or_language_is_refused(question: str) -> None:
    assert not any(hit.answers for hit in index().search(question)[:1])


@pytest.mark.parametrize(
    ("question", "page"),
    [
        ("call my program from Java", "serving"),
        ("write an axum handler in Rust", "rust"),
        ("TypeScript client for a chat", "front-ends"),
        ("stop a run with curl", "serving"),
        ("how many tokens did it use", "usage"),
        ("what does a fine-tuned model cost", "usage"),
    ],
)
def test_words_like_those_of_another_field_are_answered(question: str, page: str) -> None:
    (hit, *_) = index().search(question)
    assert hit.answers
    assert hit.passage.page == page


def test_an_amount_says_nothing_about_a_section() -> None:
    assert index().search("stop my agent after 10k")[0] == index().search("stop my agent after")[0]
    assert index().search("python 3.11 async")[0] == index().search("python async")[0]


def test_forms_of_a_word_are_one() -> None:
    page = parse("x", "# X\n\nNothing.\n\n## One\n\nIt retries.\n\n## Two\n\nIt streams.\n")
    assert headings(small(page), "retrying a retry") == ["One"]
    assert headings(small(page), "streaming") == ["Two"]


def test_a_name_is_found_however_it_is_written() -> None:
    page = parse("x", "# X\n\nNothing.\n\n## One\n\nSet `max_tokens`.\n\n## Two\n\nUse a `StreamListener`.\n")
    assert headings(small(page), "maxtokens") == ["One"]
    assert headings(small(page), "max tokens")[0] == "One"
    assert headings(small(page), "listener of a stream") == ["Two"]


def test_a_word_with_a_wrong_letter_is_the_one_that_was_meant() -> None:
    assert headings(small(HOUSE), "where is the boileer?") == ["Boiler", "Two", "One"]
    assert headings(small(HOUSE), "where is the boiling?") == []
    assert index().search("websockt chat")[0].passage.page == "websocket"


def test_a_section_with_all_words_goes_before_one_that_repeats_a_few() -> None:
    page = parse("x", "# X\n\nNothing.\n\n## One\n\nPump pump pump pump.\n\n## Two\n\nThe pump of the long red pipe.\n")
    assert headings(small(page), "the long red pipe of a pump")[0] == "Two"


def test_a_section_that_speaks_of_a_part_of_the_question_is_no_answer() -> None:
    (hit, *_) = index().search("which embedding fits a vector database of recipes for sourdough bread?")
    assert not hit.answers
    (hit, *_) = index().search("How do I stream only one field?")
    assert hit.answers


def test_a_section_is_found_by_its_own_place() -> None:
    for place in ("usage: Budgets", "rust: Limits", "serving: limits"):
        (hit, *_) = index().search(place)
        assert hit.passage.place.lower() == place.lower()
        assert hit.named


def test_an_error_message_finds_its_section_whatever_stands_in_its_gaps() -> None:
    message = "ProviderError: no API key for openai/gpt-4o: set OPENAI_API_KEY, or pass api_key= to the LM"
    (hit, *others) = index().search(message)
    assert hit.passage.heading == "`no API key for …: set …, or pass api_key= to the LM`"
    assert hit.passage not in [other.passage for other in others]
    assert not index().search("no API key for a demo")[0].named


def test_examples_count_less_where_a_question_asks_why() -> None:
    texts = ["The boiler is red.", "```python\nboiler.start()\n```"]
    prose, example = small(HOUSE).relevance("how do I start the boiler", texts)
    assert example == prose
    prose, example = small(HOUSE).relevance("why is the boiler red", texts)
    assert example < prose


def test_a_conversation_is_no_conversion() -> None:
    page = parse("x", "# X\n\nNothing.\n\n## One\n\nA conversion.\n\n## Two\n\nConversations.\n")
    assert headings(small(page), "conversational") == ["Two"]


def test_a_question_of_unknown_words_finds_nothing() -> None:
    assert index().search("zebra xylophone") == []
    assert index().search("how do I?") == []
    assert index().search('"; DROP TABLE sections; -- * NEAR(') == index().search("drop table sections near")
    assert Index([]).search("streaming") == []


def test_terms_are_words_without_filler_and_long_numbers() -> None:
    assert terms("How do I answer a 429 for drop_oldest, and 500000 rows? Answer!") == [
        "answer",
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
