"""What ``--help`` shows: headings, real names of arguments, an example that the parser takes, and no empty defaults."""

from __future__ import annotations

import io
import re
import shlex

import pytest

from dspy_live.cli.app import main, make_app
from dspy_live.cli.colours import coloured, wants_colours
from dspy_live.cli.doctor.finding import Finding, print_findings
from dspy_live.cli.table import COMMANDS, GROUPS


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--help"]) == 0
    return capsys.readouterr().out


def test_the_commands_stand_under_headings_in_the_order_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    found = re.findall(r"^╭─ (.*?) ─|^│ ([a-z]+)  ", text, re.MULTILINE)
    assert [heading for heading, _ in found if heading] == [*GROUPS, "Options"]
    assert [name for _, name in found if name] == list(COMMANDS)
    assert len({len(line) for line in re.findall(r"^│ [a-z]+ +(?=[A-Z])", text, re.MULTILINE)}) == 1, "one column"
    assert "Examples:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_its_arguments_by_name_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, name)
    usage = text.partition("\n")[0]
    positional = re.findall(r"^│ (?:\* {1,2}| {0,3})([A-Z]+) ", text, re.MULTILINE)
    taken = re.findall(r"[A-Z]+", usage.replace("[OPTIONS]", "").partition(name)[2])
    assert positional == taken, "the usage line names what the help explains"
    assert "[default: False]" not in text
    assert "[default: ()]" not in text
    example = re.findall(r"Example: dspy-live (.*)", text)
    assert len(example) == 1
    command, bound, *_ = make_app().parse_args(shlex.split(example[0]), exit_on_error=False, print_error=False)
    assert command.__name__ == name
    assert bound is not None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("no", "red", Terminal()) == "\x1b[1;31mno\x1b[0m"
    assert coloured("no", "red", io.StringIO()) == "no"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colours(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colours(Terminal())


def test_the_doctors_report_is_folded_and_ends_with_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    long = Finding("note", "lm", "none: commands use the simulated LM and answers are made up", "name one with --lm")
    screen = Terminal()
    print_findings([Finding("ok", "python", "3.13"), long], screen)
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= 60 for line in lines), lines
    assert lines[2].startswith(" " * 20 + "answers")
    assert lines[-1] == "nothing is broken; worth a look: lm"
    print_findings([Finding("bad", "port", "8000 is taken", "--port 8001")], plain := io.StringIO())
    assert plain.getvalue().endswith("to mend first: port\n")
