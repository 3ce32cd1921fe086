"""What is said of a command line that can't be understood: what is wrong, and how it is right."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dspy_live.cli.colours import coloured
from dspy_live.cli.table import COMMANDS

if TYPE_CHECKING:
    from cyclopts import CycloptsError


def wrong_use(exc: CycloptsError, command: str) -> str:
    """Return the message for words that the parser refused, with the command's example where one helps."""
    from cyclopts import CoercionError, MissingArgumentError, UnusedCliTokensError

    found = COMMANDS.get(command)
    tip = f"dspy-live {command} --help" if found else "dspy-live --help"
    if isinstance(exc, MissingArgumentError) and found is not None and exc.argument is not None and not exc.keyword:
        name = exc.argument.name
        missing = name if name.startswith("--") else name.upper()
        return f"{command} needs {missing}, as in: dspy-live {found.example}{_see(tip)}"
    if isinstance(exc, UnusedCliTokensError) and exc.unused_tokens:
        words = ", ".join(repr(word) for word in exc.unused_tokens)
        return f"nothing takes {words}; a text of several words stands in quotes{_see(tip)}"
    text = " ".join(str(exc).split()).rstrip(".")
    if isinstance(exc, CoercionError) and exc.target_type in (int, float) and exc.token and exc.token.keyword:
        kind = "a whole number" if exc.target_type is int else "a number"
        text = f"{exc.token.keyword} takes {kind}; got {exc.token.value!r}"
    return text + _see(tip)


def _see(tip: str) -> str:
    """Return where to read on: below the message on a terminal, and on its line in a log."""
    if sys.stderr.isatty():
        return coloured(f"\n  see {tip}", "dim", sys.stderr)
    return f"; see {tip}"
