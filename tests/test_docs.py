"""What the README and the guides show was run: every Python block, and every command line for its flags."""

from __future__ import annotations

import ast
import importlib
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
from xml.etree import ElementTree

import pytest

import dspy_live
from dspy_live.cli.app import COMMANDS, make_app
from dspy_live.simulator import Simulator

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, *GUIDES]
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


def of(*languages: str, pages: list[Path] = PAGES) -> list[Block]:
    return [block for page in pages for block in blocks(page) if block.language in languages]


# The README's blocks go on from one another, and run in order; those of the guides stand each for itself.
ALONE = of("python", pages=GUIDES)


@pytest.fixture(scope="module")
def failures() -> dict[str, str | None]:
    """What became of every Python block: an OpenAI model's address is the simulated LM's."""
    pieces = [(block.name, block.text) for block in ALONE]
    with Simulator().running() as url:
        environ = {**os.environ, "OPENAI_API_BASE": url, "OPENAI_API_KEY": "none", "PYTHONWARNINGS": "default"}
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests/support/run_blocks.py")],
            input=json.dumps(pieces),
            env=environ,
            capture_output=True,
            text=True,
            timeout=590,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(600)  # the first one waits for all blocks
@pytest.mark.parametrize("name", [block.name for block in ALONE])
def test_a_python_block_runs(name: str, failures: dict[str, str | None]) -> None:
    assert failures[name] is None, failures[name]


def test_the_blocks_of_the_readme_run_in_order_without_a_key() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/try_readme.py"), str(README)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = done.stdout.count("ran   ")
    passed_over = [b for b in blocks(README) if b.text.startswith(("pip install", "make ")) or "rust" in b.language]
    assert ran == len(blocks(README)) - len(passed_over) > 10


def test_a_block_of_a_readme_that_fails_is_named(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("```python\n# well.py\nprint(1)\n```\n\n```python\n# broken.py\nprint(1 / 0)\n```\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/try_readme.py"), str(page)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "ran   # well.py" in done.stdout
    assert "failed: # broken.py" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_there_is_something_to_run() -> None:
    assert len(ALONE) > 10


@cache
def flags_of(command: str) -> frozenset[str]:
    app = make_app()[command]
    found = {name for argument in app.assemble_argument_collection() for name in argument.names}
    return frozenset(found | {"--help", "-h"})


def command_lines(block: Block) -> Iterator[list[str]]:
    """The ``dspy-live`` command lines of a shell block, without what comes before and after them in a pipe."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s[|&>]+\s?|;(?=\s|$)", line.removeprefix("$ ").split("  #")[0]):
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


def _literals(folder: Path) -> list[str]:
    """The string constants of every module below a folder, with adjacent ones joined, as Python joins them."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("\0".join(str(p.value) if isinstance(p, ast.Constant) else "" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_message_of_the_troubleshooting_page_is_one_that_the_code_has() -> None:
    import dspy

    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    messages = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(messages) > 15
    assert dspy.__file__ is not None
    known = [*_literals(ROOT / "src" / "dspy_live"), *_literals(Path(dspy.__file__).parent / "predict")]
    for message in messages:
        if message != "dspy-live: command not found":  # the shell's own
            parts = [part.strip(" …") for part in message.split("…") if part.strip(" :,")]
            assert any(all(part in text for part in parts) for text in known), message


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    missing = {f"dspy_live.{name}" for name in dspy_live.__all__} - shown
    assert not missing, f"docs/reference does not show {sorted(missing)}"
    packages = {f"dspy_live.{name}" for name in ("client", "core.errors", "layers", "server", "simulator", "testing")}
    assert packages <= shown
    for package in packages - {"dspy_live.core.errors"}:
        folder = ROOT / "src" / package.replace(".", "/")
        for name in importlib.import_module(package).__all__:
            # A function that is called like its module: the package's own page shows neither.
            if (folder / f"{name}.py").is_file():
                assert f"{package}.{name}.{name}" in shown, f"docs/reference does not show {package}.{name}"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in GUIDES:
        assert f"{page.relative_to(ROOT / 'docs')}\n" in menu, f"{page.name} is not in the nav of mkdocs.yml"


def test_the_picture_of_a_stream_is_small_and_shows_the_blocks_command() -> None:
    picture = ROOT / "docs" / "images" / "stream.svg"
    assert picture.stat().st_size < 150_000
    tree = ElementTree.parse(picture)
    texts = [element.text or "" for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("dspy-live stream qa.py") for text in texts)
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}set"))) > 20
    assert "docs/images/stream.svg" in README.read_text("utf-8")


def test_workflows_call_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = [
        name
        for workflow in (ROOT / ".github" / "workflows").glob("*.yml")
        for name in re.findall(r"run: make ([a-z]+)", workflow.read_text("utf-8"))
    ]
    assert {"test", "wheel", "docs"} <= set(called) <= targets


def test_the_sites_dark_scheme_can_be_reached() -> None:
    """A scheme without a switch is never shown, not even to those whose system is dark."""
    palette = (ROOT / "mkdocs.yml").read_text("utf-8").partition("  palette:\n")[2].partition("  features:")[0]
    schemes = palette.split("    - ")[1:]
    assert len(schemes) == 3
    assert all("toggle:" in scheme for scheme in schemes)


def test_the_site_has_the_servers_icon() -> None:
    served = ROOT / "src/dspy_live/server/playground/icon.svg"
    assert (ROOT / "docs/images/icon.svg").read_bytes() == served.read_bytes()
