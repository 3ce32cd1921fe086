"""What the README and the guides show was run: every Python block, and every command line for its flags."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from dspy_live.cli.app import COMMANDS, make_app
from dspy_live.simulator import Simulator

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s#]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    """A fenced block: where it stands, the words behind its fence, its text."""

    name: str
    language: str
    text: str


@cache
def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, m.start()) + 1}", m[1], m[2])
        for m in _FENCE.finditer(text)
    ]


def of(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


@pytest.fixture(scope="module")
def failures() -> dict[str, str | None]:
    """What became of every Python block: an OpenAI model's address is the simulated LM's."""
    pieces = [(block.name, block.text) for block in of("python")]
    with Simulator().running() as url:
        environ = {**os.environ, "OPENAI_API_BASE": url, "OPENAI_API_KEY": "none", "PYTHONWARNINGS": "default"}
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests/support/run_blocks.py")],
            input=json.dumps(pieces),
            env=environ,
            capture_output=True,
            text=True,
            timeout=55,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", [block.name for block in of("python")])
def test_a_python_block_runs(name: str, failures: dict[str, str | None]) -> None:
    assert failures[name] is None, failures[name]


def test_there_is_something_to_run() -> None:
    assert len(of("python")) > 10
    assert {"README.md"} <= {block.name.split(":")[0] for block in of("python")}


@cache
def flags_of(command: str) -> frozenset[str]:
    app = make_app()[command]
    found = {name for argument in app.assemble_argument_collection() for name in argument.names}
    return frozenset(found | {"--help", "-h"})


def command_lines(block: Block) -> Iterator[list[str]]:
    """The ``dspy-live`` command lines of a shell block, without what comes before and after them in a pipe."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s[|&>]+\s?|;", line.removeprefix("$ ").split("  #")[0]):
            words = shlex.split(part, comments=True)
            while words and "=" in words[0] and words[0].split("=")[0].isupper():
                words = words[1:]
            if words[:3] == ["python", "-m", "dspy_live"]:
                words = ["dspy-live", *words[3:]]
            if words and Path(words[0]).name == "dspy-live":
                yield words[1:]


SHELL = of("bash", "console", "sh", "shell")


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_a_command_line_has_only_commands_and_flags_that_exist(block: Block) -> None:
    for command, *words in filter(None, command_lines(block)):
        if command.startswith("-"):
            assert command in ("--help", "--version")
            continue
        assert command in COMMANDS, f"no command {command!r}"
        known = flags_of(command)
        # run and stream take a program's inputs as flags of any name.
        if command in ("run", "stream"):
            continue
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{command} has no {word}"


def test_every_command_has_its_row() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    rows = re.findall(r"^\| `([a-z]+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(COMMANDS)


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in SHELL:
        for name in re.findall(r"^(?:\$ )?make ([a-z]+)", block.text, re.MULTILINE):
            assert name in targets, f"{block.name}: no make {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text("utf-8"))
    for target in _LINK.findall(text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
