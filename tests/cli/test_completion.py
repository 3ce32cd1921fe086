"""Completion in real shells: commands, flags, values of flags, and files where a target or a file is meant."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from tests.support.until import BOUND

from dspy_live.assistant.convert import KINDS
from dspy_live.cli.commands.completion import Shell, completion_script
from dspy_live.cli.commands.convert import Kind

if TYPE_CHECKING:
    from .conftest import Commands

CASES = {
    "dspy-live ke": "keys",
    "dspy-live keys re": "revoke",
    "dspy-live run --execution in": "inline",
    "dspy-live convert str": "streaming",
    "dspy-live serve --po": "--port",
    "dspy-live serve --config dsp": "dspy-live.toml",
    "dspy-live serve progr": "program.py",
    "dspy-live run progr": "program.py",
}
BASH = """
source {script}
complete -p dspy-live
while read -r line; do
  read -ra COMP_WORDS <<< "$line"; COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()
  _dspy_live; echo "${{COMPREPLY[*]}}"
done
"""


def test_the_kinds_that_are_completed_are_those_of_the_conversions() -> None:
    assert list(get_args(Kind)) == list(KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for name in ("program.py", "dspy-live.toml"):
        (folder / name).touch()
    return folder


def script(folder: Path, shell: Shell, name: str = "script") -> Path:
    path = folder / shell / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(completion_script(shell))
    return path


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"no {name}: run scripts/install_system.sh"
    return found


def test_bash(folder: Path) -> None:
    lines = "\n".join(CASES) + "\n"
    text = BASH.format(script=script(folder, "bash"))
    done = subprocess.run(
        [program("bash"), "-c", text], input=lines, cwd=folder, capture_output=True, text=True, timeout=100
    )
    assert not done.stderr
    how, *completed = done.stdout.splitlines()
    assert how == "complete -o default -F _dspy_live dspy-live", "where nothing else fits, bash completes files"
    assert [*completed] == [value if value != "program.py" else "" for value in CASES.values()]


def test_fish(folder: Path) -> None:
    path = script(folder, "fish")
    for line, value in CASES.items():
        text = f"source {path}; complete -C '{line}'"
        environ = {**os.environ, "HOME": str(folder)}
        done = subprocess.run(
            [program("fish"), "--no-config", "-c", text],
            cwd=folder, env=environ, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert value in [one.partition("\t")[0] for one in done.stdout.splitlines()], (line, done)


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, words: list[str], folder: Path, environ: dict[str, str]) -> None:
        self.end, theirs = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environ, start_new_session=True
        )
        os.close(theirs)
        self.said = ""

    def write(self, text: str) -> None:
        self.said = ""
        os.write(self.end, text.encode())

    def wait(self, pattern: str) -> None:
        until = time.monotonic() + BOUND
        while not re.search(pattern, self.said):
            assert time.monotonic() < until, (pattern, self.said)
            if select.select([self.end], [], [], 0.1)[0]:
                self.said += os.read(self.end, 65_536).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)


@pytest.fixture
def zsh(folder: Path) -> Iterator[Terminal]:
    functions = script(folder, "zsh", "_cyclopts_dspy-live").parent
    rc = f"fpath=({functions} $fpath); autoload -U compinit; compinit -u -D; PS1='ready> '\n"
    (functions / ".zshrc").write_text(rc)
    environ = {**os.environ, "TERM": "vt100", "ZDOTDIR": str(functions), "HOME": str(folder)}
    terminal = Terminal([program("zsh"), "-i"], folder, environ)
    terminal.wait("ready> ")
    yield terminal
    terminal.close()


def test_zsh(zsh: Terminal) -> None:
    for line, value in CASES.items():
        zsh.write(f"{line}\t")
        zsh.wait(re.escape(line[: line.rindex(" ") + 1] + value))
        zsh.write("\x15")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_installed_where_the_shell_looks(live: Commands, shell: str) -> None:
    done = live.main("completion", "--install", HOME=str(live.folder), SHELL=f"/usr/bin/{shell}")
    assert done.returncode == 0, done.stderr
    path = Path(re.findall(r"wrote (\S+);", done.stdout)[0])
    assert path.is_relative_to(live.folder)
    assert path.read_text() == live.main("completion", shell).stdout


def test_a_shell_that_is_not_known_is_told(live: Commands) -> None:
    done = live.main("completion", SHELL="/bin/tcsh")
    assert done.returncode == 2
    assert "name the shell, bash, zsh, fish; SHELL is 'tcsh'" in done.stderr
