"""The command ``dspy-live``: its commands, and their exit status.

A command is a function in a file of its own, imported only when it is asked for, so that
``dspy-live --help`` costs no import of dspy. It returns its exit status, ``None`` for 0, or raises.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("dspy_live.cli.commands.serve:serve", "Serve a program over HTTP, SSE and WebSocket."),
    "run": ("dspy_live.cli.commands.run:run", "Run a program once and print its outputs."),
    "stream": ("dspy_live.cli.commands.stream:stream", "Run a program once and print its tokens as they come."),
    "batch": ("dspy_live.cli.commands.batch:batch", "Run a program over every row of a file."),
    "load": ("dspy_live.cli.commands.load:load", "Load a server, and report rates, latencies and errors."),
    "top": ("dspy_live.cli.commands.top:top", "Watch a server: runs, rates, latencies, tokens, cost."),
    "sim": ("dspy_live.cli.commands.sim:sim", "Start the simulated LM as an OpenAI-compatible server."),
    "usage": ("dspy_live.cli.commands.usage:usage", "Show what runs used and cost, from the ledger."),
    "cache": ("dspy_live.cli.commands.cache:cache", "Look at the cache of LM replies, clear it, prune it."),
    "convert": (
        "dspy_live.cli.commands.convert:convert",
        "Make your program asynchronous, streaming, metered, served, tested.",
    ),
    "explain": ("dspy_live.cli.commands.explain:explain", "Explain a topic, or answer a question, from the guides."),
    "shell": ("dspy_live.cli.commands.shell:shell", "Talk to the assistant: guides, conversions, runs."),
    "init": ("dspy_live.cli.commands.init:init", "Write a new project: program, configuration, test, README."),
    "check": ("dspy_live.cli.commands.check:check", "Check the configuration file of a server."),
    "keys": ("dspy_live.cli.commands.keys:keys", "Make, list and revoke the API keys of a server."),
    "doctor": ("dspy_live.cli.commands.doctor:doctor", "Look at what usually goes wrong, and say what to do."),
    "completion": ("dspy_live.cli.commands.completion:completion", "Complete commands and flags in bash, zsh or fish."),
}

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def make_app() -> App:
    """Build the command line; each command's module is imported when it runs."""
    from cyclopts import App

    from dspy_live.cli.commands.version import version

    app = App(
        name="dspy-live",
        help="Run, stream and serve DSPy programs. TARGET is file.py:object, package.module:object, "
        "a saved program's folder, or an inline signature such as 'question -> answer'.",
        version=version,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, (path, summary) in COMMANDS.items():
        app.command(path, name=name, help=summary)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 for a failure, 2 for a wrong use, 130 for Ctrl-C.

    A failure is one line on stderr; ``DSPY_LIVE_DEBUG=1`` adds the traceback.
    """
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        _say("interrupted")
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
        _say(_wrong_use(exc, argv[0] if argv else ""))
        return USAGE
    except Exception as exc:
        return _failed(exc)


def _wrong_use(exc: CycloptsError, command: str) -> str:
    from cyclopts import UnusedCliTokensError

    if not isinstance(exc, UnusedCliTokensError) or not exc.unused_tokens:
        return " ".join(str(exc).split())
    words = ", ".join(repr(word) for word in exc.unused_tokens)
    help_of = f"dspy-live {command} --help" if command in COMMANDS else "dspy-live --help"
    return f"nothing takes {words}; a text of several words stands in quotes, and {help_of} tells the arguments"


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


def _say(message: str) -> None:
    print(f"dspy-live: {message}", file=sys.stderr)
