"""One home folder for every file that outlives a process."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dspy_live
from dspy_live.runtime.home import home_file


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DSPY_LIVE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_files_lie_in_one_folder_of_the_users(user: Path) -> None:
    assert home_file("ledger.db") == user / ".dspy_live" / "ledger.db"
    assert list(user.iterdir()) == [], "asking makes nothing"


def test_the_environment_names_another_folder(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user / ".dspy-live").mkdir()
    (user / ".dspy-live" / "shell_history").touch()
    monkeypatch.setenv("DSPY_LIVE_HOME", "/elsewhere")
    assert home_file("shell_history") == Path("/elsewhere/shell_history")


def test_a_file_in_the_former_folder_is_found_until_there_is_a_newer_one(user: Path) -> None:
    former, place = user / ".dspy-live" / "shell_history", user / ".dspy_live" / "shell_history"
    for path in (former, place):
        path.parent.mkdir()
    former.touch()
    assert home_file("shell_history") == former
    assert home_file("ledger.db") == user / ".dspy_live" / "ledger.db"
    place.touch()
    assert home_file("shell_history") == place


def test_nothing_else_in_the_code_names_the_folder() -> None:
    source = Path(dspy_live.__file__).parent
    naming = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in (".dspy_live", ".dspy-live", "DSPY_LIVE_HOME")
    }
    # A trial gives its process a home of its own.
    assert naming == {"runtime/home.py", "assistant/trial.py"}
