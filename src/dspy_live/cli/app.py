"""The command ``dspy-live``: its commands, and their exit status.

A command is a function in a file of its own, imported only when it is asked for, so that
``dspy-live --help`` costs no import of dspy. It returns its exit status, ``None`` for 0, or raises.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dspy_live.cli.colours import Colour, coloured
from dspy_live.cli.table import COMMANDS, GROUPS

if TYPE_CHECKING:
    from cyclopts import App

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


ABOUT = """Run, stream and serve DSPy programs.

TARGET is file.py:object, package.module:object, a saved program's folder, or an inline signature such as \
'question -> answer'. Without an LM the simulated one answers, so that everything can be tried without a key."""

EXAMPLES = """Examples:
  dspy-live run "question -> answer" "Why do rivers bend?"
  dspy-live serve qa.py --lm openai/gpt-4o-mini
  dspy-live explain "How do I stream only one field?"

`dspy-live COMMAND --help` tells a command's arguments and options."""


def make_app() -> App:
    """Build the command line; each command's module is imported when it runs."""
    from cyclopts import App, Group, Parameter

    from dspy_live.cli.commands.version import version

    look: Any = {"theme": {"cyclopts.name": "bold cyan"}, "help_formatter": _aligned()}
    headings = {name: Group(name, sort_key=number, **look) for number, name in enumerate(GROUPS)}
    others = Group("Options", sort_key=len(GROUPS), **look)
    app = App(
        name="dspy-live",
        usage="dspy-live COMMAND [ARGUMENTS]",
        help=ABOUT,
        help_epilogue=EXAMPLES,
        help_format="plaintext",
        version=version,
        group_commands=others,
        group_parameters=Group.create_default_parameters("Options"),
        default_parameter=Parameter(show_default=_default_shown),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app["--help"].help = "Show this help."
    app["--version"].help = "Show the versions of dspy-live and DSPy."
    for number, (name, command) in enumerate(COMMANDS.items()):
        app.command(
            command.path,
            name=name,
            help=command.summary,
            sort_key=number,
            group=headings[command.group],
            usage=f"dspy-live {name} {command.takes} [OPTIONS]".replace("  ", " "),
            help_format="restructuredtext",
            help_epilogue=f"Example: dspy-live {command.example}",
        )
    return app


def _aligned() -> Any:
    """Return a formatter whose panels have columns of one width."""
    from cyclopts.help import DefaultFormatter
    from cyclopts.help.specs import get_default_command_columns

    def columns(console: Any, options: Any, entries: Any) -> Any:
        name, about = get_default_command_columns(console, options, entries)
        return name.copy(min_width=max(map(len, COMMANDS)) + 2), about

    return DefaultFormatter(column_specs=columns)


def _default_shown(value: Any) -> str | None:
    """Return how help shows a default; what is off or empty by default needs no words."""
    return None if value in (None, False, "", ()) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 for a failure, 2 for a wrong use, 130 for Ctrl-C.

    A failure is one line on stderr; ``DSPY_LIVE_DEBUG=1`` adds the traceback.
    """
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        _say("interrupted", "dim")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (``| head``): no more is to be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK


def _run(argv: Sequence[str]) -> int:
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        return _unknown(argv[0])
    from cyclopts import CycloptsError

    try:
        # A lone dash, stdin, looks like a flag without a name to the parser.
        words = ["@-" if word == "-" else word for word in argv]
        status = make_app()(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else OK
    except CycloptsError as exc:
        from dspy_live.cli.wrong_use import wrong_use

        _say(wrong_use(exc, argv[0] if argv else ""))
        return USAGE
    except Exception as exc:
        return _failed(exc)


def _unknown(command: str) -> int:
    import difflib

    close = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COMMANDS)}"
    _say(f"no command {command!r}; {hint}")
    return USAGE


def _failed(exc: Exception) -> int:
    from dspy_live.core.errors import ConfigurationError, InputError, LiveError

    if os.environ.get("DSPY_LIVE_DEBUG"):
        import traceback

        traceback.print_exception(exc)
    if isinstance(exc, (ConfigurationError, InputError)):
        _say(exc.message)
        return USAGE
    if isinstance(exc, BrokenPipeError):
        raise exc
    cause = exc.__cause__ if isinstance(exc, LiveError) and not exc.public else None
    error = cause or exc
    text = str(error) if isinstance(error, LiveError) else f"{type(error).__name__}: {error}"
    line = _user_line(error)
    _say(text + (f"\n  at {line}" if line else ""))
    return FAILED


def _user_line(exc: BaseException) -> str | None:
    # Only where the program was loaded: a failure before that has no line of the user's.
    user_frame = sys.modules.get("dspy_live.loading.user_frame")
    return user_frame.user_line(exc) if user_frame else None


def _say(message: str, colour: Colour = "red") -> None:
    print(f"{coloured('dspy-live:', colour, sys.stderr)} {message}", file=sys.stderr)
