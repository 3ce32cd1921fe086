"""Record `dspy-live stream` in a terminal as an animated SVG: the README's picture of tokens arriving.

.venv/bin/python scripts/record_stream.py docs/images/stream.svg

Each piece of text appears in the picture when the command wrote it; the time before its first output is left out.
A viewer that does not animate shows the whole text.
"""

from __future__ import annotations

import os
import pty
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 100
FONT, CHARACTER, LINE, MARGIN, BAR = 14, 8.4, 21, 18, 34
REST = 3.0  # seconds that the whole text stays before the picture begins again
QUESTION = "Why do rivers bend, and why do their bends grow?"
_STYLE = (
    f"<style>text{{font:{FONT}px ui-monospace,'SFMono-Regular',Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    "fill:#d7e0e6;white-space:pre}.name{fill:#5cc9b5}.note{fill:#8a98a3}</style>"
)
_ROUND = (
    '<rect width="0" height="0">'
    '<animate id="round" attributeName="x" to="0" begin="0s;round.end" dur="{seconds:.2f}s"/></rect>'
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text on one line of the terminal, and the second at which it appeared."""

    second: float
    column: int
    line: int
    text: str


def main() -> None:
    """Run the README's program in a terminal and write the picture."""
    readme = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"^```python\n(# qa\.py\n.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit("README.md has no block that begins with # qa.py")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "qa.py").write_text(found[1], "utf-8")
        chunks = record(["dspy-live", "stream", "qa.py", QUESTION], folder)
    Path(sys.argv[1]).write_text(picture(f'dspy-live stream qa.py "{QUESTION}"', laid_out(chunks)), "utf-8")


def record(words: list[str], folder: str) -> list[tuple[float, str]]:
    """Return what the command wrote to its terminal, each piece with its second."""
    command = Path(sys.executable).with_name(words[0])
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execve(command, words, {**os.environ, "COLUMNS": str(COLUMNS), "DSPY_LIVE_HOME": folder})
    chunks: list[tuple[float, str]] = []
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not data:
            break
        chunks.append((time.monotonic(), _ESCAPES.sub("", data.decode("utf-8"))))
    if os.waitpid(child, 0)[1]:
        raise SystemExit("".join(text for _, text in chunks))
    return [(at - chunks[0][0], text) for at, text in chunks]


def laid_out(chunks: list[tuple[float, str]]) -> list[Piece]:
    """Put the text where a terminal of ``COLUMNS`` puts it; the command itself stands on the first line."""
    pieces, column, line = [], 0, 1
    for second, chunk in chunks:
        for part in re.split(r"(\n)", chunk.replace("\r", "")):
            if part == "\n":
                column, line = 0, line + 1
                continue
            while part:
                if column == COLUMNS:
                    column, line = 0, line + 1
                text, part = part[: COLUMNS - column], part[COLUMNS - column :]
                pieces.append(Piece(second, column, line, text))
                column += len(text)
    return pieces


def picture(command: str, pieces: list[Piece]) -> str:
    """Return the SVG: every piece is hidden from the beginning of each round until its second."""
    width = round(2 * MARGIN + COLUMNS * CHARACTER)
    height = BAR + 2 * MARGIN + LINE * max(piece.line for piece in pieces) + FONT // 2
    rounds = pieces[-1].second + REST
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{escape(command)}</title>",
        _STYLE,
        f'<rect width="{width}" height="{height}" rx="9" fill="#17212b"/>',
        *(f'<circle cx="{MARGIN + 18 * n}" cy="19" r="5.5" fill="#3c4a57"/>' for n in range(3)),
        _ROUND.format(seconds=rounds),
        _text(Piece(0, 0, 0, "$ "), "note", hidden=False),
        _text(Piece(0, 2, 0, command), "", hidden=False),
    ]
    for piece in pieces:
        for part, kind in _kinds(piece):
            lines.append(_text(part, kind, hidden=True))
    return "\n".join([*lines, "</svg>", ""])


def _kinds(piece: Piece) -> list[tuple[Piece, str]]:
    """A notice is grey, and a field's name, at the beginning of a line, green."""
    if piece.column == 0 and piece.text.startswith("dspy-live:"):
        return [(piece, "note")]
    name = re.match(r"\w+: ?", piece.text) if piece.column == 0 else None
    if name is None:
        return [(piece, "")]
    rest = Piece(piece.second, name.end(), piece.line, piece.text[name.end() :])
    return [(Piece(piece.second, 0, piece.line, name[0]), "name"), *([(rest, "")] if rest.text else [])]


def _text(piece: Piece, kind: str, *, hidden: bool) -> str:
    if not piece.text.strip():
        return ""
    blanks = len(piece.text) - len(piece.text.lstrip(" "))
    text = piece.text.strip(" ")
    x, y = MARGIN + CHARACTER * (piece.column + blanks), BAR + MARGIN + LINE * piece.line
    until = f'<set attributeName="visibility" to="hidden" begin="round.begin" end="round.begin+{piece.second:.2f}s"/>'
    return (
        f'<text x="{x:.1f}" y="{y}" textLength="{CHARACTER * len(text):.1f}"'
        + (f' class="{kind}"' if kind else "")
        + f">{escape(text, quote=False)}{until if hidden and piece.second > 0 else ''}</text>"
    )


if __name__ == "__main__":
    main()
