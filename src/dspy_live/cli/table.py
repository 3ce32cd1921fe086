"""The commands: where each is, what it takes, and an example of it. Their help and their errors are made from this."""

from __future__ import annotations

from dataclasses import dataclass

RUNS, SERVERS, MAKES, LOOKS = "Run a program", "Serve it", "Write code", "Look and find out"
GROUPS = (RUNS, SERVERS, MAKES, LOOKS)
"""The headings of ``dspy-live --help``, in their order."""


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        path: ``module:function``; the module is imported when the command runs.
        summary: one line of ``dspy-live --help``.
        group: the heading that it stands under.
        takes: its arguments as the usage line shows them, without the options.
        example: what stands after ``dspy-live`` in a call of it that works.
    """

    path: str
    summary: str
    group: str
    takes: str
    example: str


def _command(group: str, name: str, summary: str, takes: str, example: str) -> tuple[str, Command]:
    path = f"dspy_live.cli.commands.{name}:{name}"
    return name, Command(path, summary, group, takes, f"{name} {example}".rstrip())


COMMANDS: dict[str, Command] = dict(
    (
        _command(RUNS, "run", "Run a program once and print its outputs.", "TARGET [TEXT]", 'qa.py "Why?"'),
        _command(RUNS, "stream", "Run it once and print its tokens as they come.", "TARGET [TEXT]", 'qa.py "Why?"'),
        _command(
            RUNS, "batch", "Run a program over every row of a file.", "SOURCE", "rows.csv --program qa.py -o out.jsonl"
        ),
        _command(
            SERVERS, "serve", "Serve it over HTTP, SSE and WebSocket, with a playground.", "[TARGETS...]", "qa.py"
        ),
        _command(SERVERS, "keys", "Make, list and revoke the API keys of a server.", "ACTION [NAME]", "create alice"),
        _command(SERVERS, "check", "Check the configuration file of a server.", "[CONFIG]", ""),
        _command(SERVERS, "top", "Watch a server: runs, rates, latencies, tokens, cost.", "[URL]", ""),
        _command(
            SERVERS, "load", "Load a server, and report rates, latencies and errors.", "URL", "http://127.0.0.1:8000"
        ),
        _command(SERVERS, "sim", "Start the simulated LM as an OpenAI-compatible server.", "", ""),
        _command(MAKES, "init", "Write a new project: program, configuration, test, README.", "[FOLDER]", "my-service"),
        _command(
            MAKES,
            "convert",
            "Make your program asynchronous, streaming, metered, served, tested.",
            "KIND FILE",
            "async qa.py",
        ),
        _command(LOOKS, "doctor", "Look at what usually goes wrong, and say what to do.", "[TARGET]", "qa.py"),
        _command(
            LOOKS, "explain", "Explain a topic, or answer a question, from the guides.", "[TOPIC...]", "streaming"
        ),
        _command(LOOKS, "shell", "Talk to the assistant: guides, conversions, runs.", "[FILE]", "qa.py"),
        _command(LOOKS, "usage", "Show what runs used and cost, from the ledger.", "", "--by model --since 7d"),
        _command(LOOKS, "cache", "Look at the cache of LM replies, clear it, prune it.", "ACTION", "stats"),
        _command(LOOKS, "completion", "Complete commands and flags in bash, zsh or fish.", "[SHELL]", "--install"),
    )
)
