"""One line of the doctor's report, and the report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import Literal, NamedTuple, TextIO

from dspy_live.cli.colours import Colour, coloured

_COLOURS: dict[str, Colour] = {"ok": "green", "note": "yellow", "bad": "red"}
_INDENT = 20
"""Where the text of a finding begins: behind its state and its name."""


class Finding(NamedTuple):
    """What was looked at, what was found, and what to do. Only ``"bad"`` makes the command fail."""

    state: Literal["ok", "note", "bad"]
    name: str
    detail: str
    do: str = ""


def print_findings(findings: Sequence[Finding], to: TextIO) -> None:
    """Print each finding, folded at the terminal's width, and how many of them want attention."""
    width = max(40, get_terminal_size().columns) if to.isatty() else 10_000
    for finding in findings:
        state = coloured(f"{finding.state:4}", _COLOURS[finding.state], to)
        print(f"{state}  {finding.name:<12}  {_folded(finding.detail, width)}", file=to)
        if finding.do:
            print(f"{'':{_INDENT}}→ {_folded(finding.do, width - 2, _INDENT + 2)}", file=to)
    print(f"\n{_verdict(findings)}", file=to)


def _folded(text: str, width: int, indent: int = _INDENT) -> str:
    lines = textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False)
    return f"\n{'':{indent}}".join(lines)


def _verdict(findings: Sequence[Finding]) -> str:
    bad, notes = ([f.name for f in findings if f.state == state] for state in ("bad", "note"))
    if bad:
        return f"to mend first: {', '.join(bad)}"
    return f"nothing is broken; worth a look: {', '.join(notes)}" if notes else "nothing is broken"
