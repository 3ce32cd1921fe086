"""Plain words: a request, an example, a question."""

from __future__ import annotations

import pytest

from dspy_live.assistant.router import is_words, route


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Create an async version of my program", "async"),
        ("Build a streaming response system", "streaming"),
        ("Add usage tracking to my program", "usage"),
        ("please add caching to my module", "caching"),
        ("turn on logging for this program", "logging"),
        ("make my program a server", "serving"),
        ("write a FastAPI app for it", "fastapi"),
        ("generate tests for my program", "tests"),
        ("Can you make my program asynchronous?", "async"),
        ("I want my program to be asynchronous", "async"),
        ("convert it so that it streams", "streaming"),
    ],
)
def test_a_request_is_a_conversion(line: str, kind: str) -> None:
    intent = route(line)
    assert (intent.what, intent.kind) == ("convert", kind)


@pytest.mark.parametrize(
    "line",
    [
        "How do I use async in DSPy?",
        "Tell me about usage tracking",
        "What does a timeout do to my program?",
        "how can I add caching to my program",
        "is streaming slower?",
        "explain backpressure to me",
        "I want to know how to stream",
        "why does my program not stream?",
    ],
)
def test_a_question_is_a_question(line: str) -> None:
    assert route(line).what == "question"


@pytest.mark.parametrize("line", ["Show me streaming examples", "an example of a timeout"])
def test_an_example_is_wanted(line: str) -> None:
    assert route(line).what == "example"


def test_what_says_nothing() -> None:
    assert not is_words("??? !!!")
    assert not is_words("what is it")
    assert is_words("timeouts")
