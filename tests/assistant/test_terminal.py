"""What a person sees at a terminal: completion, code that can be copied, notes that stay out of an answer."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from dspy_live.cli.screens import assistant_output
from dspy_live.cli.screens.run_screens import Terminal
from dspy_live.cli.shell.answer import notices_afterwards, own_code
from dspy_live.cli.shell.prompt import candidates, make_prompt
from dspy_live.core.events import Status, Token
from dspy_live.core.schema import Field, Schema
from dspy_live.runtime.scope import Scope

KNOWN = {"/explain": "", "/explain rust": "", "/explain retries": "", "/exit": "", "/load": "", "/async": ""}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("/expl", ["/explain "]),
        ("/ex", ["/explain ", "/exit"]),
        ("/explain ", ["/explain rust", "/explain retries"]),
        ("/explain ru", ["/explain rust"]),
        ("/lo", ["/load"]),
        ("how", []),
    ],
)
def test_a_line_is_completed_a_word_at_a_time(line: str, found: list[str]) -> None:
    assert list(candidates(line, KNOWN)) == found


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("/expl\tru\t\r", "/explain rust"),
        ("/lo\t\r", "/load"),
        ("/expl\tr\tr\r", "/explain rr"),
        ("how\t\r", "how"),
    ],
)
def test_tab_takes_a_single_candidate_at_once(typed: str, line: str) -> None:
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        prompt = make_prompt(None, lambda: KNOWN)
        keyboard.send_text(typed)
        assert prompt() == line


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_code_in_a_page_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    long = f"    print({'x' * 80!r})"
    code = f"import dspy\n\nif True:\n{long}"
    for show in (lambda out: assistant_output.show_markdown(f"# A\n\nText.\n\n```python\n{code}\n```\n\nMore.", out),
                 lambda out: assistant_output.show_code(code, out)):  # fmt: skip
        out = Tty()
        show(out)
        assert code in out.getvalue()


async def test_notes_wait_for_the_end_of_the_text_that_is_being_printed() -> None:
    out = io.StringIO()
    schema = Schema("qa", (), (Field("answer", "str", {}),))
    screen = Terminal(Scope(), schema, out, out)
    screen.show(Status(message="begins"))
    for text in ("One ", "two "):
        screen.show(Token(text=text, field="answer", predictor="self", lm_call=1))
        screen.show(Status(message="still at it"))
    screen.show(Token(text="three", field="answer", predictor="self", lm_call=1, last=True))
    screen.show(Status(message="done"))
    assert out.getvalue() == "[begins]\nOne two three\n[still at it]\n[still at it]\n[done]\n"


def test_what_is_logged_during_an_answer_comes_after_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    logger = logging.getLogger("a.noisy.library")
    handler = logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    try:
        with notices_afterwards():
            print("One ", end="")
            logger.warning("no price is known")
            print("two")
        logger.warning("later")
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().out == "One two\nno price is known\nlater\n"


def test_code_that_an_lm_has_changed_is_known_from_the_guides_own() -> None:
    section = "Text.\n\n```python\nimport dspy\nprint(1)\n```\n"
    answer = "So:\n\n```python\nimport dspy\nprint(1)\n```\n\nOr:\n\n```python\nprint(2)\n```\n"
    assert own_code(answer, [section]) == ["print(2)\n"]
