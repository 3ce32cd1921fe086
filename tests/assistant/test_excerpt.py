"""A long section is shown by its parts that answer the question, and no part is cut."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_live.assistant.excerpt import LONG, excerpt

FILLING = "\n\n".join(f"Paragraph {number}\nof the middle." for number in range(LONG))


def shown(text: str, word: str) -> str:
    def relevance(texts: Sequence[str]) -> list[float]:
        return [float(word in each) for each in texts]

    return excerpt(text, relevance)


def test_a_short_section_is_shown_whole() -> None:
    assert shown("One.\n\nTwo.", "Two") == "One.\n\nTwo."


def test_of_a_long_one_its_beginning_and_what_answers_are_shown() -> None:
    text = f"The beginning.\n\n{FILLING}\n\nThe boiler is red."
    assert shown(text, "boiler") == "The beginning.\n\n…\n\nThe boiler is red."


def test_what_follows_is_told() -> None:
    assert shown(f"The boiler is red.\n\n{FILLING}", "boiler") == "The boiler is red.\n\n…"


def test_an_example_stands_with_the_sentence_that_announces_it_and_is_not_cut() -> None:
    example = "Light it:\n\n```python\nboiler.light()\n\nboiler.wait()\n```"
    assert shown(f"The beginning.\n\n{FILLING}\n\n{example}", "light()") == f"The beginning.\n\n…\n\n{example}"


def test_a_sentence_that_points_back_brings_what_it_points_to() -> None:
    text = f"The beginning.\n\n{FILLING}\n\nThere is a boiler.\n\nIt is red."
    assert shown(text, "red") == "The beginning.\n\n…\n\nThere is a boiler.\n\nIt is red."


def test_an_example_at_the_beginning_is_shown_only_where_it_answers() -> None:
    text = f"```python\nstart()\n```\n\n{FILLING}\n\nThe boiler is red."
    assert shown(text, "boiler") == "…\n\nThe boiler is red."


def test_a_long_table_keeps_its_head_and_the_rows_that_answer() -> None:
    rows = "\n".join(f"| row {number} | {'boiler' if number == 20 else 'pipe'} |" for number in range(80))
    table = shown(f"The beginning.\n\n| what | which |\n|---|---|\n{rows}", "boiler")
    assert "| what | which |\n|---|---|\n| row 0 | pipe |" in table
    assert "| row 20 | boiler |" in table
    assert table.endswith("| … | |")
    assert table.count("\n") < 22


def test_links_between_pages_are_text_in_a_terminal() -> None:
    text = "See [scale](../scale.md#shared-state) and [the paper](https://example.org)."
    assert shown(text, "scale") == "See scale and [the paper](https://example.org)."
