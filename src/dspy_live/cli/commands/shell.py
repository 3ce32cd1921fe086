"""``dspy-live shell``: the assistant as a REPL, on a terminal or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from dspy_live.cli.flags import ProgramFlags
from dspy_live.runtime.home import home_file

GREETING = "dspy-live assistant. /help lists the commands; or ask in plain words. Ctrl-D leaves."
PROMPT, CONTINUED = "live> ", "  ... "


def shell(file: Path | None = None, /, *, flags: ProgramFlags | None = None) -> int:
    """Talk to the assistant: ask about dspy-live, load a program, convert it, run it, serve it.

    A line that ends in a backslash goes on in the next. Ctrl-C stops what runs, not the shell.

    Args:
        file: a Python file to load first.
    """
    from dspy_live.cli.shell.session import Session

    session = Session(sys.stdout, flags or ProgramFlags(), ask=_asker())
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    lines = _typed(session.words) if interactive else _piped()
    if file is not None:
        session.take(f"/load {file}")
    for line in lines:
        session.take(line)
        sys.stdout.flush()
        if session.over:
            break
    return 0


def _asker() -> Callable[[str], bool | None]:
    """A yes-or-no question on a terminal; in a pipe nobody is there to agree."""
    from dspy_live.cli.screens import assistant_output

    if sys.stdin.isatty():
        return lambda question: assistant_output.ask(question, sys.stdout)
    return lambda question: None


def _piped() -> Iterator[str]:
    """Lines from a pipe, put together where one ends in a backslash."""
    whole = ""
    for line in sys.stdin:
        text = line.rstrip("\r\n")
        if text.endswith("\\"):
            whole += text[:-1] + "\n"
            continue
        yield whole + text
        whole = ""
    if whole:
        yield whole


def _typed(words: Callable[[], dict[str, str]]) -> Iterator[str]:
    """Greet a person and return their lines: with history, completion, highlighting and many lines in one.

    Raises :class:`ConfigurationError`, before the greeting, when prompt_toolkit is not installed.
    """
    from dspy_live.cli.shell.prompt import make_prompt

    prompt = make_prompt(_history(), words)
    print(GREETING)
    return _lines_of(prompt)


def _lines_of(prompt: Callable[[], str]) -> Iterator[str]:
    while True:
        try:
            yield prompt()
        except KeyboardInterrupt:
            continue  # Ctrl-C at the prompt: forget the line
        except EOFError:
            print()
            return


def _history() -> Path | None:
    """Return the file of typed lines, which only the user can read; ``None`` where it can't be made."""
    path = home_file("shell_history")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return None
    return path
